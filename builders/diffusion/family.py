"""What must be known of a family of text-to-image models to call its pipeline."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from builders.recipes.recipe import Recipe
from builders.recipes.timestep_interval import WHOLE

ALWAYS, NEVER = -math.inf, math.inf
CLIP, T5 = (77, 2), 1
"""CLIP's limit of tokens and how many of them mark the ends; and how many T5 marks."""


@dataclass(frozen=True, kw_only=True)
class Family:
    name: str
    pipeline: str
    """Class name in diffusers."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Values in the model's configuration that tell this family from others of its class, such as
    {"scheduler.prediction_type": "v_prediction"}."""
    hub_ids: tuple[str, ...] = ()
    """Hub ids of its models that need no look at their configuration."""
    guidance: str = "guidance_scale"
    """Keyword of the pipeline's call that the recipe's guidance_scale is passed as; "" if there is none."""
    acts_above: float = 1.0
    """Guidance changes images if it is above this value: 1 where the pass without prompt is mixed in, `ALWAYS` where
    the model reads the value itself, `NEVER` where it is ignored."""
    negative_prompt: Literal["guidance", "true_cfg_scale", "no"] = "guidance"
    """What makes a negative prompt act: guidance, a second scale, or nothing."""
    interval_tensors: tuple[str, ...] = ()
    """Tensors that the pipeline hands to a callback and that hold both passes, where guidance can be limited to an interval
    of the timesteps; empty where the pipeline decides once, before the first step, whether it guides."""
    is_in_table: bool = True
    """Whether the family is a row of the table; a pipeline that is called by its signature alone is not."""
    accelerations: tuple[str, ...] = ()
    """Fields of a recipe that its transformer takes beside those that all do: attention_backend, first_block_cache."""
    takes_adapters: bool = True
    """Whether the pipeline loads adapters (LoRA)."""
    embeddings: tuple[str, ...] = ()
    """What `encode_prompt` returns, in order, by keyword of the call; empty if prompts are passed as text."""
    max_sequence_length: int | None = None
    """Length that prompts are padded to, where the pipeline lets the caller choose it."""
    tokens: Mapping[str, tuple[int, int]] = field(default_factory=lambda: {"tokenizer": CLIP})
    """Limit of tokens by folder of the tokenizer, and how many of them are not the prompt's."""
    max_batch_size: int | None = None
    """1 where prompts are padded to their longest neighbor, so that bytes would depend on neighbors."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the call."""
    size: int = 1024
    """Default width and height in pixels, where the model's configuration has no sample_size."""
    num_inference_steps: int = 50
    guidance_scale: float = 7.5
    dtype: str = "float16"

    @property
    def encode_options(self) -> dict[str, Any]:
        """Arguments of `encode_prompt` and of the call that decide how prompts are read."""
        length = {} if self.max_sequence_length is None else {"max_sequence_length": self.max_sequence_length}
        return {**self.options, **length}

    def call_options(self, recipe: Recipe) -> dict[str, Any]:
        """Returns the arguments of the pipeline's call that a recipe decides, besides prompts and seeds."""
        found: dict[str, Any] = {**self.encode_options}
        if self.guidance:
            found[self.guidance] = recipe.guidance_scale
        if self.negative_prompt == "true_cfg_scale" and recipe.true_cfg_scale > 1:
            found["true_cfg_scale"] = recipe.true_cfg_scale
        return {
            **found,
            "num_inference_steps": recipe.num_inference_steps,
            "width": recipe.width,
            "height": recipe.height,
        }

    def largest_batch(self, recipe: Recipe) -> int | None:
        """Returns the largest batch in which an image does not depend on its neighbors; None if any batch will do."""
        # First Block Cache decides for a whole batch whether a step is computed.
        return 1 if recipe.first_block_cache else self.max_batch_size

    def is_guided(self, recipe: Recipe) -> bool:
        """Whether the recipe's guidance changes images."""
        return recipe.guidance_scale > self.acts_above

    def is_negative_used(self, recipe: Recipe) -> bool:
        """Whether the pipeline computes a pass for the recipe's negative prompt, which may be empty."""
        if self.negative_prompt == "guidance":
            return self.is_guided(recipe)
        return self.negative_prompt == "true_cfg_scale" and recipe.true_cfg_scale > 1

    def ignored(self, recipe: Recipe) -> dict[str, Any]:
        """Returns the settings of a recipe that change no image, with the values that are in force instead."""
        found: dict[str, Any] = {}
        if self.acts_above == NEVER and recipe.guidance_scale != 1:
            found["guidance_scale"] = 1.0
        if recipe.true_cfg_scale != 1 and (self.negative_prompt != "true_cfg_scale" or not recipe.negative_prompt):
            found["true_cfg_scale"] = 1.0
        if recipe.guidance_interval != WHOLE and not self.is_guided(recipe):
            found["guidance_interval"] = WHOLE
        if recipe.negative_prompt and not self.is_negative_used(recipe):
            found["negative_prompt"] = ""
        return found
