"""Reads the configuration of a model (some kilobytes of JSON) from a directory or the Hub, without loading the model."""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from builders.diffusion.pin import model_directory
from builders.recipes.recipe import Recipe

FILES = {
    "index": ("model_index.json",),
    "scheduler": ("scheduler/scheduler_config.json",),
    "denoiser": ("unet/config.json", "transformer/config.json"),
    "vae": ("vae/config.json",),
}


def read_model_config(recipe: Recipe) -> Mapping[str, Any] | None:
    """Returns facts about a recipe's model by name, such as "scheduler.prediction_type"; None if it cannot be read.

    "sample_size" is the model's own image size in pixels, if its configuration says one.
    """
    return _read(model_directory(recipe), recipe.model, recipe.revision)


@lru_cache(maxsize=8)
def _read(directory: str, model: str, revision: str) -> Mapping[str, Any] | None:
    found: dict[str, Any] = {}
    for source, names in FILES.items():
        for name in names:
            fields = _read_json(directory, model, revision, name)
            if fields is not None:
                found |= {f"{source}.{key}": value for key, value in fields.items()}
                break
        else:
            if source == "index":
                return None
    if "index._class_name" not in found:
        return None
    blocks = found.get("vae.block_out_channels") or found.get("vae.encoder_block_out_channels")
    if isinstance(found.get("denoiser.sample_size"), int) and blocks:
        found["sample_size"] = found["denoiser.sample_size"] * 2 ** (len(blocks) - 1)
    return found


def _read_json(directory: str, model: str, revision: str, name: str) -> dict[str, Any] | None:
    try:
        path = Path(directory) / name if directory else Path(_download(model, revision, name))
        fields = json.loads(path.read_text(encoding="utf-8"))
    except Exception:  # the client raises all kinds of errors without a network; pinning the model reports them
        return None
    return fields if isinstance(fields, dict) else None


def _download(model: str, revision: str, name: str) -> str:
    import huggingface_hub

    return huggingface_hub.hf_hub_download(model, name, revision=revision or None)
