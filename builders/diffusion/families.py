"""The table of families of text-to-image models: how each is called, what it ignores, and its defaults.

To add a family, add a row to `FAMILIES` and a tiny pipeline to the tests; docs/families.md leads through it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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


IMAGE_EMBEDDINGS = (
    "prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds",
)  # fmt: skip
MASKED_EMBEDDINGS = (
    "prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask",
)  # fmt: skip
EXACT_SIZE = {"use_resolution_binning": False, "clean_caption": False}
"""Generates the size that was requested, and reads prompts the same whether packages for cleaning are installed or not."""

_SD = Family(
    name="Stable Diffusion 1.x",
    pipeline="StableDiffusionPipeline",
    hub_ids=(
        "CompVis/stable-diffusion-v1-4", "runwayml/stable-diffusion-v1-5", "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "stabilityai/stable-diffusion-2-base", "stabilityai/stable-diffusion-2-1-base",
    ),
    interval_tensors=("prompt_embeds",),
    embeddings=("prompt_embeds", "negative_prompt_embeds"),
    size=512,
)  # fmt: skip
_SDXL = Family(
    name="Stable Diffusion XL",
    pipeline="StableDiffusionXLPipeline",
    hub_ids=("stabilityai/stable-diffusion-xl-base-1.0",),
    interval_tensors=("prompt_embeds", "add_text_embeds", "add_time_ids"),
    embeddings=IMAGE_EMBEDDINGS,
    tokens={"tokenizer": CLIP, "tokenizer_2": CLIP},
    guidance_scale=5.0,
)
_SD3 = Family(
    name="Stable Diffusion 3.x",
    pipeline="StableDiffusion3Pipeline",
    hub_ids=(
        "stabilityai/stable-diffusion-3-medium-diffusers", "stabilityai/stable-diffusion-3.5-medium",
        "stabilityai/stable-diffusion-3.5-large",
    ),
    interval_tensors=("prompt_embeds", "pooled_prompt_embeds"),
    embeddings=IMAGE_EMBEDDINGS,
    max_sequence_length=256,
    tokens={"tokenizer": CLIP, "tokenizer_2": CLIP, "tokenizer_3": (256, T5)},
    num_inference_steps=28,
    guidance_scale=7.0,
)  # fmt: skip
_FLUX = Family(
    name="Flux dev",
    pipeline="FluxPipeline",
    facts={"denoiser.guidance_embeds": True},
    hub_ids=("black-forest-labs/FLUX.1-dev", "black-forest-labs/FLUX.1-Krea-dev"),
    acts_above=ALWAYS,
    negative_prompt="true_cfg_scale",
    embeddings=("prompt_embeds", "pooled_prompt_embeds"),
    max_sequence_length=512,
    tokens={"tokenizer": CLIP, "tokenizer_2": (512, T5)},
    num_inference_steps=28,
    guidance_scale=3.5,
    dtype="bfloat16",
)
_KLEIN = Family(
    name="Flux 2 klein base",
    pipeline="Flux2KleinPipeline",
    hub_ids=("black-forest-labs/FLUX.2-klein-base-4B", "black-forest-labs/FLUX.2-klein-base-9B"),
    embeddings=("prompt_embeds",),
    max_sequence_length=512,
    tokens={"tokenizer": (512, 12)},
    guidance_scale=4.0,
    dtype="bfloat16",
)
_Z_IMAGE = Family(
    name="Z-Image",
    pipeline="ZImagePipeline",
    hub_ids=("Tongyi-MAI/Z-Image",),
    acts_above=0.0,
    tokens={"tokenizer": (512, 8)},
    max_batch_size=1,
    guidance_scale=4.0,
    dtype="bfloat16",
)

FAMILIES = (
    # A family with facts comes before the one that its class defaults to.
    replace(
        _SD,
        name="Stable Diffusion 2.x with v-prediction",
        facts={"scheduler.prediction_type": "v_prediction"},
        hub_ids=("stabilityai/stable-diffusion-2", "stabilityai/stable-diffusion-2-1"),
        size=768,
    ),
    replace(
        _SD,
        name="SD Turbo",
        facts={"scheduler._class_name": "EulerDiscreteScheduler", "scheduler.timestep_spacing": "trailing"},
        hub_ids=("stabilityai/sd-turbo",),
        num_inference_steps=1,
        guidance_scale=1.0,
    ),
    _SD,
    replace(
        _SDXL,
        name="SDXL Turbo",
        facts={
            "scheduler._class_name": "EulerAncestralDiscreteScheduler",
            "scheduler.timestep_spacing": "trailing",
            "denoiser.sample_size": 64,
        },
        hub_ids=("stabilityai/sdxl-turbo",),
        size=512,
        num_inference_steps=1,
        guidance_scale=1.0,
    ),
    _SDXL,
    _SD3,
    replace(
        _SD3,
        name="Stable Diffusion 3.5 Turbo",
        hub_ids=("stabilityai/stable-diffusion-3.5-large-turbo",),
        num_inference_steps=4,
        guidance_scale=1.0,
    ),
    _FLUX,
    replace(
        _FLUX,
        name="Flux schnell",
        facts={"denoiser.guidance_embeds": False},
        hub_ids=("black-forest-labs/FLUX.1-schnell",),
        acts_above=NEVER,
        max_sequence_length=256,
        tokens={"tokenizer": CLIP, "tokenizer_2": (256, T5)},
        num_inference_steps=4,
        guidance_scale=1.0,
    ),
    Family(
        name="Flux 2",
        pipeline="Flux2Pipeline",
        hub_ids=("black-forest-labs/FLUX.2-dev",),
        acts_above=ALWAYS,
        negative_prompt="no",
        embeddings=("prompt_embeds",),
        max_sequence_length=512,
        tokens={"tokenizer": (512, 40)},
        guidance_scale=4.0,
        dtype="bfloat16",
    ),
    replace(
        _KLEIN,
        name="Flux 2 klein",
        facts={"index.is_distilled": True},
        hub_ids=("black-forest-labs/FLUX.2-klein-4B", "black-forest-labs/FLUX.2-klein-9B"),
        acts_above=NEVER,
        negative_prompt="no",
        num_inference_steps=4,
        guidance_scale=1.0,
    ),
    _KLEIN,
    Family(
        name="PixArt-Sigma",
        pipeline="PixArtSigmaPipeline",
        hub_ids=("PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",),
        embeddings=MASKED_EMBEDDINGS,
        max_sequence_length=300,
        tokens={"tokenizer": (300, T5)},
        options=EXACT_SIZE,
        num_inference_steps=20,
        guidance_scale=4.5,
    ),
    Family(
        name="Sana",
        pipeline="SanaPipeline",
        hub_ids=("Efficient-Large-Model/Sana_1600M_1024px_diffusers",),
        embeddings=MASKED_EMBEDDINGS,
        max_sequence_length=300,
        tokens={"tokenizer": (300, 2)},
        options=EXACT_SIZE,
        num_inference_steps=20,
        guidance_scale=4.5,
        dtype="bfloat16",
    ),
    Family(
        name="Qwen-Image",
        pipeline="QwenImagePipeline",
        hub_ids=("Qwen/Qwen-Image", "Qwen/Qwen-Image-2512"),
        guidance="true_cfg_scale",
        tokens={"tokenizer": (512, 5)},
        max_batch_size=1,
        size=1328,
        guidance_scale=4.0,
        dtype="bfloat16",
    ),
    _Z_IMAGE,
    replace(
        _Z_IMAGE,
        name="Z-Image Turbo",
        facts={"scheduler.shift": 3.0},
        hub_ids=("Tongyi-MAI/Z-Image-Turbo",),
        num_inference_steps=9,
        guidance_scale=0.0,
    ),
)
