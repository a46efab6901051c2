"""Loads a model's own safety checker. It never blackens images; it only flags them."""

from collections.abc import Callable
from functools import lru_cache

import diffusers
import numpy as np
import torch
import transformers
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from numpy.typing import NDArray

from builders.diffusion.loading import config_source
from builders.diffusion.process import device, out_of_memory
from builders.diffusion.quiet import quiet
from builders.errors import UserError, first_line
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe

Check = Callable[[NDArray[np.uint8]], list[int]]
"""A safety checker: maps images (n, height, width, 3) to n verdicts, 1 for flagged and 0 for not flagged."""


def load_check(recipe: Recipe, execution: Execution) -> Check | None:
    """Loads the model's own safety checker; returns None if `recipe.safety` is off, or if the model has no checker.

    Raises:
        UserError: `recipe.safety` is drop but the model has no checker, or the checker cannot be loaded.
    """
    if recipe.safety == "off":
        return None
    source, revision = config_source(recipe)
    try:
        with quiet():
            config = diffusers.DiffusionPipeline.load_config(source, revision=revision)
        if (config.get("safety_checker") or [None, None])[1] != StableDiffusionSafetyChecker.__name__:
            if recipe.safety == "drop":
                raise UserError(
                    f"model '{recipe.model}' has no safety checker, which drop needs; give --safety flag or off"
                )
            return None
        with quiet():
            return _load_check(source, revision, recipe.variant, recipe.dtype)
    except UserError:
        raise
    except Exception as error:
        raise out_of_memory(recipe, execution, error) or UserError(
            f"the safety checker of '{recipe.model}' cannot be loaded ({first_line(error)}); give --safety off to do without"
        ) from None


@lru_cache(maxsize=1)
def _load_check(source: str, revision: str | None, variant: str, dtype: str) -> Check:
    options = {"revision": revision} if revision else {}
    checker, loading = StableDiffusionSafetyChecker.from_pretrained(
        source,
        subfolder="safety_checker",
        dtype=getattr(torch, dtype),
        use_safetensors=True,
        output_loading_info=True,
        variant=variant or None,
        **options,
    )
    if loading["missing_keys"]:
        raise ValueError(f"its weights lack {min(loading['missing_keys'])}")
    checker.to(device())
    # This extractor resizes with Pillow. The other backend needs torchvision and gives other pixels.
    extractor = transformers.CLIPImageProcessorPil.from_pretrained(source, subfolder="feature_extractor", **options)

    @torch.inference_mode()
    def check(images: NDArray[np.uint8]) -> list[int]:
        pixel_values = extractor(list(images), return_tensors="pt").pixel_values
        # The checker blackens the images that it flags, so it gets dummy images.
        _, flagged = checker(
            images=np.zeros((len(images), 1, 1, 3)), clip_input=pixel_values.to(device(), getattr(torch, dtype))
        )
        return [int(verdict) for verdict in flagged]

    return check
