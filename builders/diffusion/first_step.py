"""Denoises the first step without adapters, which brings back the diversity that distilled models lose (arXiv 2503.10637)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from builders.diffusion.acceleration import denoiser_of
from builders.recipes.recipe import Recipe


@contextmanager
def first_step(pipeline: Any, recipe: Recipe, options: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yields the arguments of a pipeline's call, during which adapters are off until the first step ends.

    Only the denoiser's adapters are switched; prompts are embedded with those of the text encoder.

    Args:
        options: The arguments so far; a callback in them is called at the end of each step, as before.
    """
    if not recipe.first_step:
        yield options
        return
    denoiser, then = denoiser_of(pipeline), options.get("callback_on_step_end")

    def end_step(pipeline: Any, index: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if index == 0:
            denoiser.enable_adapters()
        return then(pipeline, index, timestep, tensors) if then else {}

    denoiser.disable_adapters()
    try:
        yield {**options, "callback_on_step_end": end_step}
    finally:
        denoiser.enable_adapters()
