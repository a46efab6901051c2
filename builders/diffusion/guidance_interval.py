"""Guides only in an interval of the timesteps; outside it the denoiser runs without the unconditional pass.

The pipelines of Stable Diffusion 1.x to 3.x ask at every step whether they guide, and hand a callback the embeddings of
both passes, the unconditional ones first. The callback takes the first half away, or puts it there.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from builders.diffusion.family import Family
from builders.recipes.recipe import Recipe
from builders.recipes.timestep_interval import WHOLE, parse_interval

UNCONDITIONAL = {
    "prompt_embeds": "negative_prompt_embeds",
    "pooled_prompt_embeds": "negative_pooled_prompt_embeds",
    "add_text_embeds": "negative_pooled_prompt_embeds",
}
"""Keyword of the call that holds the unconditional pass of a tensor; of others, such as sizes, both passes are the same."""
UNGUIDED = 1.0


def interval_options(recipe: Recipe, family: Family, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a pipeline's call that limit guidance to the recipe's interval; {} for the whole of it.

    Args:
        arguments: What the prompts decide in this call: embeddings (n, tokens, width) by keyword.
    """
    if recipe.guidance_interval == WHOLE or not family.is_guided(recipe):
        return {}
    start, stop = parse_interval(recipe.guidance_interval)
    options: dict[str, Any] = {
        "callback_on_step_end": _switch(recipe, start, stop, arguments),
        "callback_on_step_end_tensor_inputs": list(family.interval_tensors),
    }
    # The call begins without guidance if the interval begins later, and holds the embeddings of one pass then.
    return options if start == 0 else {**options, family.guidance: UNGUIDED}


def is_guided_at(index: int, num_timesteps: int, start: float, stop: float) -> bool:
    """Whether the timestep with this index, of `num_timesteps`, is guided."""
    return start <= index / num_timesteps < stop


def _switch(
    recipe: Recipe, start: float, stop: float, arguments: Mapping[str, Any]
) -> Callable[[Any, int, Any, dict[str, Tensor]], dict[str, Tensor]]:
    """Returns the callback for the end of a step, which prepares the next step."""

    def switch(pipeline: Any, index: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        count = pipeline.num_timesteps
        was_guided, is_guided = (is_guided_at(number, count, start, stop) for number in (index, index + 1))
        if was_guided == is_guided:
            return {}
        pipeline._guidance_scale = recipe.guidance_scale if is_guided else UNGUIDED
        if not is_guided:
            return {name: tensor.chunk(2)[1] for name, tensor in tensors.items()}
        return {name: torch.cat([_unconditional(name, tensor, arguments), tensor]) for name, tensor in tensors.items()}

    return switch


def _unconditional(name: str, tensor: Tensor, arguments: Mapping[str, Any]) -> Tensor:
    found = arguments[UNCONDITIONAL[name]] if name in UNCONDITIONAL else tensor
    return found.to(tensor)  # type: ignore[no-any-return]
