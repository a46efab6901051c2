"""Pins adapters (LoRA) to the bytes of a file, and loads them beside a pipeline's weights. They are never fused into those.

Invariant: an adapter of weight 0 gives the images of the model without it, byte for byte.
"""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from builders.errors import UserError, first_line
from builders.networks.revision import COMMIT, file_digest
from builders.recipes.adapters import Adapter, parse_adapter
from builders.recipes.recipe import Recipe
from builders.storage.hub_error import hub_error

USUAL_NAME = "pytorch_lora_weights.safetensors"
"""Name that diffusers saves adapters by."""
LICENSE, USES_REAL = "modelspec.license", "uses_real"
"""Keys of a safetensors file's metadata that the card shows."""
UNKNOWN_LICENSE = "other"
"""License of a model or an adapter where nothing says it, by the Hub's name for it."""
SEPARATOR = "; "
"""Between what several sources say of real images."""


@dataclass(frozen=True)
class Pinned:
    adapter: Adapter
    path: str = ""
    """The file on this machine; "" for one of the Hub."""
    license: str = UNKNOWN_LICENSE
    uses_real: str = ""


def pin_adapters(recipe: Recipe) -> Recipe:
    """Returns the recipe with each adapter named by a commit, or by the sha256 of its file, and with their licenses.

    Raises:
        UserError: there is no such adapter, it is not the one that the recipe was made with, or the Hub has no commit of it.
    """
    if not recipe.adapters:
        return recipe
    known = dict(zip(recipe.adapters, recipe.adapter_licenses, strict=False))
    paths, pinned = dict(recipe.paths), []
    for text in recipe.adapters:
        adapter = parse_adapter(text)
        is_pinned = text in known and (text in paths or COMMIT.fullmatch(adapter.revision))
        pinned.append(Pinned(adapter, paths.get(text, ""), known[text]) if is_pinned else _pin(adapter))
    said = [*recipe.uses_real.split(SEPARATOR), *(one.uses_real for one in pinned)]
    uses_real = dict.fromkeys(text for text in said if text)
    return replace(
        recipe,
        adapters=tuple(str(one.adapter) for one in pinned),
        adapter_licenses=tuple(one.license for one in pinned),
        uses_real=SEPARATOR.join(uses_real),
        paths=tuple({**paths, **{str(one.adapter): one.path for one in pinned if one.path}}.items()),
    )


def load_adapters(pipeline: Any, recipe: Recipe) -> None:
    """Adds the recipe's adapters to a pipeline, in the floating-point type of its modules.

    Raises:
        UserError: an adapter cannot be read, or does not fit the model.
    """
    names, paths = [], dict(recipe.paths)
    for number, text in enumerate(recipe.adapters):
        name, file = f"adapter_{number}", _file(text, paths.get(text, ""))
        try:
            pipeline.load_lora_weights(
                str(file.parent), weight_name=file.name, adapter_name=name, use_safetensors=True, local_files_only=True
            )
        except Exception as error:  # peft and diffusers raise all kinds of errors for an adapter of another model
            raise UserError(
                f"adapter '{text}' cannot be loaded ({first_line(error)}); give one that was fitted on this kind of model"
            ) from None
        if not any(name in adapters for adapters in pipeline.get_list_adapters().values()):
            raise UserError(
                f"adapter '{text}' changes no layer of '{recipe.model}'; give one that was fitted on this kind of model"
            )
        names.append(name)
    if names:
        pipeline.set_adapters(names, [parse_adapter(text).weight for text in recipe.adapters])


def _path(adapter: Adapter) -> str:
    """The adapter's name with what looks like a revision: a path may contain an @."""
    return f"{adapter.id}@{adapter.revision}" if adapter.revision else adapter.id


def _pin(adapter: Adapter) -> Pinned:
    for path in (_path(adapter), adapter.id):
        if Path(path).exists():
            return _pin_file(replace(adapter, id=path, revision="" if path != adapter.id else adapter.revision))
    if adapter.revision.startswith("sha256:"):
        raise UserError(f"adapter '{adapter}' was read from a file; give --adapter that file")
    if len(adapter.id.split("/")) < 2 or adapter.id.startswith(("/", ".", "~")):
        raise UserError(f"there is no adapter '{adapter.id}'; give a file, a folder, or USER/NAME on the Hub")
    return _pin_on_hub(adapter)


def _pin_file(adapter: Adapter) -> Pinned:
    path = Path(adapter.id)
    if path.is_dir():
        path = path / _choose(adapter.id, [file.name for file in path.glob("*.safetensors")])
    digest = file_digest(path)
    if adapter.revision not in ("", digest):
        raise UserError(
            f"adapter '{path}' is {digest}, but {adapter.revision} was given; give that file, or leave @… out"
        )
    facts = _metadata(path)
    # Not resolved: in the Hub's cache, files are links to blobs without a suffix.
    name = Path(os.path.abspath(adapter.id)).name
    return Pinned(
        Adapter(name, digest, adapter.weight),
        os.path.abspath(path),
        facts.get(LICENSE, UNKNOWN_LICENSE),
        facts.get(USES_REAL, ""),
    )


def _pin_on_hub(adapter: Adapter) -> Pinned:
    import huggingface_hub

    user, name, *inner = adapter.id.split("/")
    repo = f"{user}/{name}"
    try:
        info = huggingface_hub.model_info(repo, revision=adapter.revision or None)
        files = [one.rfilename for one in info.siblings or []]
        file = "/".join(inner) or _choose(repo, [one for one in files if one.endswith(".safetensors")])
        if file not in files:
            raise UserError(f"'{repo}' has no file '{file}'; give --adapter {repo}/FILE")
        facts = huggingface_hub.parse_safetensors_file_metadata(repo, file, revision=info.sha).metadata or {}
    except UserError:
        raise
    except Exception as error:  # the client raises all kinds of errors without a network or for an odd name
        raise hub_error(f"cannot look up adapter '{repo}'", error, repo, "give --adapter a file") from None
    license_name = facts.get(LICENSE) or getattr(info.card_data, "license", None) or UNKNOWN_LICENSE
    return Pinned(
        Adapter(f"{repo}/{file}", str(info.sha), adapter.weight), "", str(license_name), str(facts.get(USES_REAL, ""))
    )


def _choose(where: str, names: list[str]) -> str:
    if USUAL_NAME in names:
        return USUAL_NAME
    if len(names) == 1:
        return names[0]
    what = f"holds {len(names)} of them" if names else "holds none"
    raise UserError(f"an adapter is a .safetensors file, and '{where}' {what}; give --adapter {where}/FILE")


def _metadata(path: Path) -> dict[str, str]:
    """Returns the metadata in a safetensors file's header: eight bytes of length, then JSON."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return {str(name): str(value) for name, value in header.get("__metadata__", {}).items()}
    except (ValueError, TypeError, AttributeError, MemoryError, OverflowError):
        raise UserError(f"'{path}' is no .safetensors file; give --adapter one") from None


def _file(text: str, path: str) -> Path:
    """Returns the file of a pinned adapter on this machine; downloads one of the Hub unless it was before."""
    adapter = parse_adapter(text)
    if path:
        return Path(path)
    if not COMMIT.fullmatch(adapter.revision):
        raise UserError(f"adapter '{text}' was read from a file; give --adapter that file")
    import huggingface_hub

    user, name, *inner = adapter.id.split("/")
    try:
        return Path(huggingface_hub.hf_hub_download(f"{user}/{name}", "/".join(inner), revision=adapter.revision))
    except Exception as error:  # the client raises all kinds of errors without a network
        raise hub_error(
            f"adapter '{text}' cannot be downloaded", error, f"{user}/{name}", "give --adapter a file"
        ) from None
