"""The engine that paints with a Stable Diffusion pipeline (1.x, 2.x) of diffusers; the only place that imports diffusers.

Invariant: an image's bytes depend on its own seed and prompt and on the shape of its batch, never on its neighbours: each
image has its own generator, each prompt is encoded alone, and a short batch is filled up to the full size.
"""

import os
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import diffusers
import torch
import transformers
from torch import Tensor

from builders.format.errors import UserError
from builders.making.engines.base import Paint, Painted
from builders.making.plan import Sample
from builders.making.recipe import Recipe

# Tokenizers start threads of their own, which a worker does not want.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.disable_progress_bar()


def load(recipe: Recipe) -> Paint:
    torch.set_num_threads(recipe.num_threads)
    pipeline = load_pipeline(recipe)

    # A prompt's embedding is a few hundred KB at Stable Diffusion's size: the bound keeps 365,000 prompts out of memory.
    @lru_cache(maxsize=2048)
    def encode(prompt: str) -> Tensor:
        embedding, _ = pipeline.encode_prompt(prompt, pipeline.device, 1, False)
        return embedding[0]

    @torch.inference_mode()
    def paint(samples: Sequence[Sample]) -> list[Painted]:
        filled = [*samples, *[samples[-1]] * (recipe.batch_size - len(samples))]
        is_guided = recipe.guidance_scale > 1
        images = _run(
            pipeline,
            prompt_embeds=torch.stack([encode(sample.prompt) for sample in filled]),
            negative_prompt_embeds=torch.stack([encode(recipe.negative_prompt)] * len(filled)) if is_guided else None,
            generator=[torch.Generator("cpu").manual_seed(sample.seed) for sample in filled],
            guidance_scale=recipe.guidance_scale,
            num_inference_steps=recipe.num_inference_steps,
            width=recipe.width,
            height=recipe.height,
            output_type="np",
        )
        return [Painted(image) for image in (images[: len(samples)] * 255).round().astype("uint8")]

    return paint


def _run(pipeline: Any, **settings: Any) -> Any:
    """The pictures (n, height, width, 3) in [0, 1]; settings that the pipeline refuses are the user's mistake."""
    try:
        return pipeline(**settings).images
    except ValueError as error:
        raise UserError(f"the model cannot paint so ({str(error).splitlines()[0]}); change that setting") from None


@lru_cache(maxsize=1)
def load_pipeline(recipe: Recipe) -> Any:
    """The recipe's pipeline on the GPU, where there is one: safetensors only, no remote code, no built-in checker.

    Raises:
        UserError: the model cannot be found or is no text-to-image pipeline.
    """
    try:
        pipeline = diffusers.DiffusionPipeline.from_pretrained(
            recipe.model_dir or recipe.model,
            revision=None if recipe.model_dir else recipe.revision,
            dtype=getattr(torch, recipe.dtype),
            use_safetensors=True,
            safety_checker=None,
            requires_safety_checker=False,
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"model '{recipe.model}' cannot be loaded ({reason}); give --model a Hub id or a directory"
        ) from None
    if not isinstance(pipeline, diffusers.StableDiffusionPipeline):
        raise UserError(
            f"model '{recipe.model}' is a {type(pipeline).__name__}; give --model a Stable Diffusion 1.x or 2.x"
        )
    if type(pipeline.scheduler).__name__ != recipe.scheduler:
        pipeline.scheduler = _scheduler_class(recipe.scheduler).from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to("cuda" if torch.cuda.is_available() else "cpu")


def environment(recipe: Recipe) -> dict[str, str]:
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    else:
        device = f"cpu {torch.backends.cpu.get_cpu_capability()}"
    packages = ("fakeit", "torch", "diffusers", "transformers", "numpy", "pillow")
    return {**{name: version(name) for name in packages}, "device": device}


def _scheduler_class(name: str) -> Any:
    known = [key for key in dir(diffusers) if key.endswith("Scheduler")]
    if name not in known:
        raise UserError(f"unknown scheduler '{name}'; diffusers {diffusers.__version__} has {', '.join(known)}")
    return getattr(diffusers, name)
