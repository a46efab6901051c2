"""Loads a text-to-image pipeline of diffusers, from safetensors only and without remote code.

Only this module, its neighbors `quiet.py`, `safety_checker.py` and `signature.py`, and the embedded model's training
import diffusers.
"""

import gc
from pathlib import Path
from typing import Any

import diffusers
import torch

from builders.diffusion.acceleration import accelerate
from builders.diffusion.adapters import load_adapters
from builders.diffusion.family import Family
from builders.diffusion.family_defaults import family_of
from builders.diffusion.pin import is_checkpoint, model_directory
from builders.diffusion.process import device, out_of_memory
from builders.diffusion.quiet import quiet
from builders.errors import ReadableError, UserError, first_line, suggest
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
from builders.storage.hub_error import hub_error

OF_RECIPE = (
    "model", "model_dir", "revision", "variant", "dtype", "adapters", "vae_tiling", "quantization",
    "attention_backend", "first_block_cache",
)  # fmt: skip
OF_EXECUTION = ("channels_last", "compile", "vae_slicing")
"""Fields that the loaded modules depend on. Recipes that differ in others share them."""


FEW_STEPS = ("LCMScheduler", "TCDScheduler")
"""Schedulers for distilled adapters, which fit every model that DDIM fits; diffusers does not list them as compatible."""


def load_pipeline(recipe: Recipe, execution: Execution) -> Any:
    """Returns the recipe's pipeline, on the GPU if there is one. Recipes that differ only in guidance or size share it.

    Raises:
        UserError: the model cannot be found or is not a text-to-image pipeline, or a setting does not fit it.
    """
    try:
        with quiet():
            pipeline, own = _loaded_modules(recipe, execution)
    except ReadableError:
        raise
    except Exception as error:  # the libraries raise all kinds of errors for a damaged directory
        way_out = "give --model a Hub id or a directory of a text-to-image pipeline with safetensors"
        if variants := _variants(recipe):
            way_out = f"its weights are of variant {variants[0]}: give --variant {variants[0]}"
        raise out_of_memory(recipe, execution, error) or hub_error(
            f"model '{recipe.model}' cannot be loaded", error, recipe.model, way_out
        ) from None
    is_own = type(own).__name__ == recipe.scheduler
    pipeline.scheduler = own if is_own else _compatible_scheduler(own, recipe.scheduler)
    return pipeline


def load_family(recipe: Recipe) -> Family:
    """Returns the family of the recipe's model.

    Raises:
        UserError: the model's configuration cannot be read, or its class does not say how it is called.
    """
    found = family_of(recipe)
    if found is None:
        raise UserError(
            f"model '{recipe.model}' has no model_index.json; give --model a Hub id or a directory of a text-to-image "
            "pipeline with safetensors"
        )
    return found.family


def config_source(recipe: Recipe) -> tuple[str, str | None]:
    """Returns the directory or Hub id of the model's configuration, and its revision."""
    return (model_directory(recipe), None) if recipe.model_dir else _source(recipe)


def _source(recipe: Recipe) -> tuple[str, str | None]:
    """Returns the directory, single file or Hub id of the recipe's model, and its revision."""
    return (recipe.model_dir, None) if recipe.model_dir else (recipe.model, recipe.revision)


def _variants(recipe: Recipe) -> list[str]:
    """Returns the variants of a local model that has no other weights: ["fp16"] for *.fp16.safetensors."""
    names = [path.name.split(".") for path in Path(recipe.model_dir or "-").glob("*/*.safetensors")]
    found = {name[1].split("-")[0] if len(name) == 3 else "" for name in names}
    return sorted(found - {recipe.variant}) if recipe.variant not in found and "" not in found else []


_last_loaded: dict[tuple[Any, ...], tuple[Any, Any]] = {}
"""The model that was loaded last, by what it depends on."""


def _loaded_modules(recipe: Recipe, execution: Execution) -> tuple[Any, Any]:
    """Caches the last result of `_load_modules`. Frees it before another model is loaded, so memory never holds two."""
    key = (*(getattr(recipe, name) for name in OF_RECIPE), *(getattr(execution, name) for name in OF_EXECUTION))
    if key not in _last_loaded:
        _last_loaded.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        _last_loaded[key] = _load_modules(recipe, execution)
    return _last_loaded[key]


def _load_modules(recipe: Recipe, execution: Execution) -> tuple[Any, Any]:
    """Loads the pipeline with its adapters; returns it and the scheduler that it came with."""
    pipeline = _read_pipeline(recipe)
    pipeline.set_progress_bar_config(disable=True)
    load_adapters(pipeline, recipe)
    if device().type != "cpu":
        pipeline.to(device())
    accelerate(pipeline, recipe, execution)
    return pipeline, pipeline.scheduler


def _read_pipeline(recipe: Recipe) -> Any:
    source, revision = _source(recipe)
    is_single_file = is_checkpoint(source)
    config = diffusers.DiffusionPipeline.load_config(
        str(Path(source).parent) if is_single_file else source, revision=revision
    )
    left_out: dict[str, Any] = {}
    if "safety_checker" in config:
        left_out = {"safety_checker": None, "requires_safety_checker": False}
    if config["_class_name"].startswith("StableDiffusionXL"):
        # A watermark would be added only on machines where another package is installed.
        left_out = {"add_watermarker": False}
    dtype = getattr(torch, recipe.dtype)
    if is_single_file:
        return getattr(diffusers, config["_class_name"]).from_single_file(
            source, config=str(Path(source).parent), local_files_only=True, torch_dtype=dtype, **left_out
        )
    return diffusers.DiffusionPipeline.from_pretrained(
        source, revision=revision, variant=recipe.variant or None, dtype=dtype, use_safetensors=True, **left_out
    )


def _compatible_scheduler(own: Any, name: str) -> Any:
    """Returns the named scheduler with the configuration of the model's own, if it samples the same kind of model."""
    known = {kind.__name__: kind for kind in own.compatibles}
    if "DDIMScheduler" in known:
        known |= {name: getattr(diffusers, name) for name in FEW_STEPS}
    if name not in known:
        raise UserError(f"unknown scheduler '{name}' for this model; {suggest(name, sorted(known))}")
    try:
        return known[name].from_config(own.config)
    except (ImportError, ValueError, TypeError) as error:
        raise UserError(
            f"scheduler '{name}' cannot be used ({first_line(error)}); choose another --scheduler"
        ) from None
