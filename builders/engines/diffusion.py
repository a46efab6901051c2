"""The engine that generates images with a pipeline of diffusers: Stable Diffusion 1.x and 2.x, SDXL, SD 3, Flux, …

This module only declares what the engine can do, and imports neither torch nor diffusers. `diffusion/sampling.py` does
the work.
"""

import contextlib
from collections.abc import Collection
from typing import Any

from builders.diffusion import family_defaults, presets
from builders.diffusion.adapters import pin_adapters
from builders.diffusion.pin import pin_pipeline
from builders.engines.base import Generate
from builders.errors import ReadableError, UserError
from builders.images.read import WHITE
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe

USES_GPU = True
IS_SYNTHETIC = True
HAS_TOKENIZERS = True
PACKAGES = ("torch", "diffusers", "transformers", "tokenizers", "safetensors", "numpy", "pillow")

__all__ = [
    "HAS_TOKENIZERS", "IS_SYNTHETIC", "PACKAGES", "USES_GPU", "check", "complete", "count_operations", "describe",
    "json_fields", "load", "max_batch_size", "notes", "pin", "preset_settings",
]  # fmt: skip


def check(recipe: Recipe, num_rounds: int) -> None:
    for name in ("num_inference_steps", "width", "height"):
        if getattr(recipe, name) < 1:
            raise UserError(f"{name} is {getattr(recipe, name)}, but must be at least 1")
    if recipe.background_color != WHITE:
        raise UserError(
            f"background_color is '{recipe.background_color}', but only real images have transparent pixels"
        )


def complete(recipe: Recipe, *, is_other_model: bool, given: Collection[str]) -> Recipe:
    try:
        found = family_defaults.family_of(recipe)
    except ReadableError:
        # The settings were chosen for this model. Loading it reports what is wrong.
        if is_other_model:
            raise
        return recipe
    if found is None and is_other_model:
        raise UserError(
            f"model '{recipe.model}' has no model_index.json; give --model a Hub id, a directory of a pipeline, or a "
            "single-file checkpoint"
        )
    if found is None:
        return recipe
    return family_defaults.complete(recipe, found, is_other_model=is_other_model, given=given)


def pin(recipe: Recipe) -> Recipe:
    return pin_adapters(pin_pipeline(recipe))


def max_batch_size(recipe: Recipe) -> int | None:
    with contextlib.suppress(ReadableError):
        if found := family_defaults.family_of(recipe):
            return found.family.largest_batch(recipe)
    return None


def notes(recipe: Recipe) -> list[str]:
    lines = family_defaults.describe_settings(recipe)
    with contextlib.suppress(ReadableError):
        if fitting := presets.fitting_presets(recipe):
            lines.append(f"presets of this model: {', '.join(fitting)}")
    return lines


def preset_settings(recipe: Recipe, name: str) -> dict[str, Any]:
    return presets.preset_settings(recipe, name)


def count_operations(recipe: Recipe) -> Any:
    from builders.diffusion import operations

    return operations.count_operations(recipe)


def describe(recipe: Recipe) -> str:
    prompt = f'prompt "{recipe.prompt}"' if recipe.prompt else f"prompts of {recipe.prompts_source}"
    return f"{prompt}, guidance {recipe.guidance_scale:g}"


def json_fields(recipe: Recipe) -> dict[str, Any]:
    return {
        "guidance_scale": recipe.guidance_scale,
        "num_inference_steps": recipe.num_inference_steps,
        "scheduler": recipe.scheduler,
        "dtype": recipe.dtype,
        "adapters": ", ".join(recipe.adapters),
    }


def load(recipe: Recipe, execution: Execution) -> Generate:
    from builders.diffusion.sampling import Sampler

    return Sampler(recipe, execution, PACKAGES)
