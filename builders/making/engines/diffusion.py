"""The engine that paints with a text-to-image pipeline of diffusers: Stable Diffusion 1.x and 2.x, SDXL, SD 3, Flux, …

Invariant: an image's bytes depend on its own seed and prompt and on the shape of its batch, never on its neighbours: each
image has its own generator, prompts are encoded in one shape, and a short batch is filled up to the full size.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from builders.format.distribution import versions
from builders.format.errors import UserError
from builders.making.engines.base import Paint, Painted
from builders.making.pipelines.loading import borrow_pipeline, load_check, load_pipeline, out_of_memory
from builders.making.pipelines.prompt_encoder import PromptEncoder
from builders.making.plan import Sample
from builders.making.recipe import Recipe


def load(recipe: Recipe) -> Paint:
    torch.set_num_threads(recipe.num_threads)
    with _told(recipe):
        load_pipeline(recipe)
        check = load_check(recipe)
        _prompt_encoder(recipe)

    def paint(samples: Sequence[Sample]) -> list[Painted]:
        filled = [*samples, *[samples[-1]] * (recipe.batch_size - len(samples))]
        with _told(recipe):
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
    return {**versions("torch", "diffusers", "transformers", "numpy", "pillow"), "device": device}


def in_full_precision(recipe: Recipe) -> Recipe:
    """The recipe by which an image that came out broken is made again: alone, for the memory of 32 bits."""
    return replace(recipe, dtype="float32", compile=False, batch_size=1)


def find_broken(pictures: NDArray[np.floating[Any]], levels: NDArray[np.uint8]) -> set[int]:
    """Which pictures (n, height, width, 3) have values that are not finite, or are of one flat colour in 8 bits."""
    is_finite = np.isfinite(pictures.sum(axis=(1, 2, 3)))
    is_flat = (levels == levels[:, :1, :1]).all(axis=(1, 2, 3))
    return {int(slot) for slot in np.flatnonzero(~is_finite | is_flat)}


def _whole_pictures(recipe: Recipe, samples: Sequence[Sample]) -> tuple[NDArray[np.uint8], set[int]]:
    """The pictures of a full batch, and the slots of those that came out broken and were made again in 32 bits.

    Raises:
        UserError: a picture is broken in 32 bits, too.
    """
    model = _Model(load_pipeline(recipe), _prompt_encoder(recipe))
    pictures, broken = _run_and_check(model, recipe, samples)
    still = broken
    if broken and recipe.dtype != "float32":
        still = _make_again(pictures, broken, in_full_precision(recipe), samples)
    if still:
        keys = sorted({samples[slot].key for slot in still})
        raise UserError(
            f"{', '.join(keys)} came out broken (not finite, or of one flat colour), in 32 bits, too; "
            "change the prompt, the guidance scale, the scheduler or the model"
        )
    return pictures, broken


def _make_again(pictures: NDArray[np.uint8], broken: set[int], recipe: Recipe, samples: Sequence[Sample]) -> set[int]:
    """Replaces the broken pictures by ones made one by one with `recipe`; the slots of those that are still broken.

    It seldom happens, so the second model does not stay in memory.
    """
    with borrow_pipeline(recipe) as pipeline:
        model = _Model(pipeline, _new_prompt_encoder(pipeline, recipe))
        still = set()
        for slot in sorted(broken):
            again, broken_again = _run_and_check(model, recipe, [samples[slot]])
            pictures[slot] = again[0]
            still |= {slot} if broken_again else set()
    return still


def _run_and_check(model: "_Model", recipe: Recipe, samples: Sequence[Sample]) -> tuple[NDArray[np.uint8], set[int]]:
    pictures = _run(model, recipe, samples)
    levels = _to_uint8(pictures)
    return levels, find_broken(pictures, levels)


@dataclass(frozen=True)
class _Model:
    pipeline: Any
    encode: PromptEncoder


def _run(model: _Model, recipe: Recipe, samples: Sequence[Sample]) -> NDArray[np.floating[Any]]:
    """The pictures (n, height, width, 3) in [0, 1]; what the pipeline refuses is the user's mistake."""
    try:
        with torch.inference_mode():
            pictures = model.pipeline(
                **model.encode([sample.prompt for sample in samples]),
                generator=[torch.Generator("cpu").manual_seed(sample.seed) for sample in samples],
                guidance_scale=recipe.guidance_scale,
                num_inference_steps=recipe.num_inference_steps,
                width=recipe.width,
                height=recipe.height,
                output_type="np",
            ).images
    except ValueError as error:
        raise UserError(f"the model cannot paint so ({str(error).splitlines()[0]}); change that setting") from None
    if pictures.shape[1:3] != (recipe.height, recipe.width):
        height, width = pictures.shape[1:3]
        raise UserError(
            f"the model makes {width}x{height} of --width {recipe.width} --height {recipe.height}; give sizes it can make"
        )
    return pictures


@lru_cache(maxsize=1)
def _prompt_encoder(recipe: Recipe) -> PromptEncoder:
    return _new_prompt_encoder(load_pipeline(recipe), recipe)


def _new_prompt_encoder(pipeline: Any, recipe: Recipe) -> PromptEncoder:
    return PromptEncoder(pipeline, recipe.negative_prompt, is_guided=recipe.guidance_scale > 1)


@contextmanager
def _told(recipe: Recipe) -> Iterator[None]:
    """Want of memory, wherever it shows, is a sentence with the batch size to try."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if sentence := out_of_memory(recipe, error):
            raise sentence from None
        raise


def _to_uint8(pictures: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    return (np.nan_to_num(pictures) * 255).round().astype(np.uint8)
