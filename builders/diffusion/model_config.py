"""Reads the configuration of a model (some kilobytes of JSON) from a directory or the Hub, without loading the model."""

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from builders.diffusion.pin import model_directory
from builders.errors import ReadableError, UserError, first_line
from builders.recipes.recipe import Recipe
from builders.storage.hub_error import hub_error

FILES = {
    "index": ("model_index.json",),
    "scheduler": ("scheduler/scheduler_config.json",),
    "denoiser": ("unet/config.json", "transformer/config.json"),
    "vae": ("vae/config.json",),
}


def read_model_config(recipe: Recipe) -> Mapping[str, Any] | None:
    """Returns facts about a recipe's model by name, such as "scheduler.prediction_type"; None without model_index.json.

    "sample_size" is the model's own image size in pixels, if its configuration says one.

    Raises:
        UserError: the Hub refuses the model, or has no such model.
        UnreachableError: the Hub does not answer.
    """
    if directory := model_directory(recipe):
        return _facts(lambda name: _read_local(Path(directory) / name))
    return _read_hub(recipe.model, recipe.revision)


@lru_cache(maxsize=8)
def _read_hub(model: str, revision: str) -> Mapping[str, Any] | None:
    return _facts(lambda name: _download(model, revision, name))


def _facts(read: Callable[[str], dict[str, Any] | None]) -> Mapping[str, Any] | None:
    found: dict[str, Any] = {}
    for source, names in FILES.items():
        fields = next((fields for name in names if (fields := read(name)) is not None), {})
        found |= {f"{source}.{key}": value for key, value in fields.items()}
        if "index._class_name" not in found:
            return None
    blocks = found.get("vae.block_out_channels") or found.get("vae.encoder_block_out_channels")
    if isinstance(found.get("denoiser.sample_size"), int) and blocks:
        found["sample_size"] = found["denoiser.sample_size"] * 2 ** (len(blocks) - 1)
    return found


def _read_local(path: Path) -> dict[str, Any] | None:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' cannot be read ({first_line(error)}); restore it") from None
    return fields if isinstance(fields, dict) else None


def _download(model: str, revision: str, name: str) -> dict[str, Any] | None:
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        path = huggingface_hub.hf_hub_download(model, name, revision=revision or None)
    except LocalEntryNotFoundError as error:
        raise _unreadable(model, error) from None
    except EntryNotFoundError:
        return None
    except Exception as error:  # the client raises all kinds of errors without a network
        raise _unreadable(model, error) from None
    return _read_local(Path(path))


def _unreadable(model: str, error: Exception) -> ReadableError:
    return hub_error(f"the configuration of '{model}' cannot be read", error, model, "give --model a directory")
