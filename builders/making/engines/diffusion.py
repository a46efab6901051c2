"""The engine that paints with a text-to-image pipeline of diffusers: Stable Diffusion 1.x and 2.x, SDXL, SD 3, Flux, …

Invariant: an image's bytes depend on its own seed and prompt and on the shape of its batch, never on its neighbours: each
image has its own generator, prompts are encoded in one shape, and a short batch is filled up to the full size.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from builders.format.errors import UserError
from builders.making.engines.base import Paint, Painted
from builders.making.pipelines.loading import load_check, load_pipeline
from builders.making.pipelines.prompt_encoder import PromptEncoder
from builders.making.plan import Sample
from builders.making.recipe import Recipe


def load(recipe: Recipe) -> Paint:
    torch.set_num_threads(recipe.num_threads)
    check = load_check(recipe)
    _prompt_encoder(recipe)

    def paint(samples: Sequence[Sample]) -> list[Painted]:
        filled = [*samples, *[samples[-1]] * (recipe.batch_size - len(samples))]
        pictures, in_32_bits = _whole_pictures(recipe, filled)
        verdicts = check(pictures) if check else [-1] * len(pictures)
        return [
            Painted(pictures[slot], verdicts[slot], "float32" if slot in in_32_bits else recipe.dtype)
            for slot in range(len(samples))
        ]

    return paint


def environment(recipe: Recipe) -> dict[str, str]:
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    else:
        device = f"cpu {torch.backends.cpu.get_cpu_capability()}"
    packages = ("fakeit", "torch", "diffusers", "transformers", "numpy", "pillow")
    return {**{name: version(name) for name in packages}, "device": device}


def in_full_precision(recipe: Recipe) -> Recipe:
    """The recipe by which an image that came out broken is made again."""
    return replace(recipe, dtype="float32", compile=False)


def find_broken(pictures: NDArray[np.floating[Any]]) -> set[int]:
    """Which of the pictures (n, height, width, 3) in [0, 1] have values that are not finite, or are of one flat colour."""
    is_finite = np.isfinite(pictures).all(axis=(1, 2, 3))
    levels = _to_uint8(pictures)
    is_flat = (levels == levels[:, :1, :1]).all(axis=(1, 2, 3))
    return {int(slot) for slot in np.flatnonzero(~is_finite | is_flat)}


def _whole_pictures(recipe: Recipe, samples: Sequence[Sample]) -> tuple[NDArray[np.uint8], set[int]]:
    """The pictures of a full batch, and the slots of those that came out broken and were made again in 32 bits.

    Raises:
        UserError: a picture is broken in 32 bits, too.
    """
    pictures = _run(recipe, samples)
    broken = find_broken(pictures)
    if broken and recipe.dtype != "float32":
        again = _run(in_full_precision(recipe), samples)
        for slot in broken:
            pictures[slot] = again[slot]
    if still := sorted({samples[slot].key for slot in find_broken(pictures)}):
        raise UserError(
            f"{', '.join(still)} came out broken (not finite, or of one flat colour), in 32 bits, too; "
            "change the prompt, the guidance scale, the scheduler or the model"
        )
    return _to_uint8(pictures), broken


def _run(recipe: Recipe, samples: Sequence[Sample]) -> NDArray[np.floating[Any]]:
    """The pictures (n, height, width, 3) in [0, 1]; what the pipeline refuses is the user's mistake."""
    pipeline, encode = load_pipeline(recipe), _prompt_encoder(recipe)
    try:
        with torch.inference_mode():
            pictures = pipeline(
                **encode([sample.prompt for sample in samples]),
                generator=[torch.Generator("cpu").manual_seed(sample.seed) for sample in samples],
                guidance_scale=recipe.guidance_scale,
                num_inference_steps=recipe.num_inference_steps,
                width=recipe.width,
                height=recipe.height,
                output_type="np",
            ).images
    except ValueError as error:
        raise UserError(f"the model cannot paint so ({str(error).splitlines()[0]}); change that setting") from None
    except (MemoryError, RuntimeError) as error:
        raise _out_of_memory(recipe, error) from None
    if pictures.shape[1:3] != (recipe.height, recipe.width):
        height, width = pictures.shape[1:3]
        raise UserError(
            f"the model makes {width}x{height} of --width {recipe.width} --height {recipe.height}; give sizes it can make"
        )
    return pictures


@lru_cache(maxsize=2)
def _prompt_encoder(recipe: Recipe) -> PromptEncoder:
    return PromptEncoder(load_pipeline(recipe), recipe.negative_prompt, is_guided=recipe.guidance_scale > 1)


def _out_of_memory(recipe: Recipe, error: Exception) -> Exception:
    """The sentence for want of memory, on a GPU or a CPU; any other error as it is."""
    is_memory = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error)
    if not is_memory:
        return error
    what = f"out of memory with batches of {recipe.batch_size} at {recipe.width}x{recipe.height}"
    if recipe.batch_size == 1:
        return UserError(f"{what}; try --vae-slicing True, --dtype float16, or a smaller size")
    return UserError(f"{what}; try --batch-size {recipe.batch_size // 2}")


def _to_uint8(pictures: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    return (np.nan_to_num(pictures) * 255).round().astype(np.uint8)
