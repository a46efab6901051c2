"""Generates batches of images with a pipeline of diffusers.

Invariant: an image's bytes depend on its own seed and prompt and on the shape of its batch, never on its neighbors.
Each image has its own generator, prompts are encoded in one shape, and a short batch is padded to the full size.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from builders.diffusion.acceleration import denoiser_of
from builders.diffusion.first_step import first_step
from builders.diffusion.guidance_interval import interval_options
from builders.diffusion.loading import load_family, load_pipeline
from builders.diffusion.process import device, out_of_memory, process_settings
from builders.diffusion.prompt_encoder import PromptEncoder
from builders.diffusion.quiet import without_known_warnings
from builders.diffusion.safety_checker import load_check
from builders.diffusion.vae import safe_decode
from builders.engines.base import GeneratedImage
from builders.errors import UserError, first_line
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
from builders.recipes.sample import Sample
from builders.versions import versions


class Sampler:
    """Callable: sampler(samples) generates one image for each sample; see `engines/base.py`."""

    def __init__(self, recipe: Recipe, execution: Execution, packages: Sequence[str]) -> None:
        self.recipe, self.execution = recipe, execution
        self.family = load_family(recipe)
        most = self.family.largest_batch(recipe)
        if most and execution.batch_size > most:
            raise UserError(
                f"in batches of {execution.batch_size}, an image of '{recipe.model}' would depend on its neighbors; give "
                f"--batch-size {most}"
            )
        with self._report_out_of_memory(), without_known_warnings():
            self.check = load_check(recipe, execution)
            self.pipeline = load_pipeline(recipe, execution)
            # Other samplers may share the pipeline with another scheduler, so each call sets this one again.
            self.scheduler = self.pipeline.scheduler
            self.encode = PromptEncoder(self.pipeline, self.family, recipe)
            extra = (*(["peft"] if recipe.adapters else []), *(["torchao"] if recipe.quantization else []))
            self.environment = environment(self.pipeline, (*packages, *extra))

    def __call__(self, samples: Sequence[Sample]) -> list[GeneratedImage]:
        with self.session():
            return self.start(samples)()

    def start(self, samples: Sequence[Sample]) -> Callable[[], list[GeneratedImage]]:
        """Does the device's part; returns a function that does the host's part, in any thread."""
        filled = [*samples, *[samples[-1]] * (self.execution.batch_size - len(samples))]
        with self._report_out_of_memory(), without_known_warnings():
            pixels, vae_dtypes = self._run(filled)
        return partial(self._finish, pixels, vae_dtypes, len(samples))

    def session(self) -> AbstractContextManager[None]:
        """Holds the settings of the process that bytes depend on, also for threads that start in the meantime."""
        return process_settings(self.execution)

    def _finish(self, tensor: Tensor, vae_dtypes: list[str], num_samples: int) -> list[GeneratedImage]:
        # Before torch has counted its threads, a new one computes with all threads of the machine.
        torch.get_num_threads()
        with self._report_out_of_memory(), without_known_warnings():
            pixels = tensor.cpu().permute(0, 2, 3, 1).float().numpy()
            images = (np.nan_to_num(pixels) * 255).round().astype(np.uint8)
            verdicts = self.check(images) if self.check else [-1] * len(images)
        broken = find_broken(pixels, images)
        return [
            GeneratedImage(images[slot], verdicts[slot], is_broken=slot in broken, vae_dtype=vae_dtypes[slot])
            for slot in range(num_samples)
        ]

    def _run(self, samples: Sequence[Sample]) -> tuple[Tensor, list[str]]:
        """Returns images (n, 3, height, width) in [0, 1], and the floating-point type in which each was decoded."""
        recipe, pipeline = self.recipe, self.pipeline
        pipeline.scheduler = self.scheduler
        decode = safe_decode(pipeline)
        # As tensors, images stay on the device; some pipelines outside of the table return these without scaling them.
        kind = "pt" if self.family.is_in_table else "np"
        try:
            with torch.inference_mode():
                prompts = self.encode([sample.prompt for sample in samples])
                options = {**self.family.call_options(recipe), **interval_options(recipe, self.family, prompts)}
                with first_step(pipeline, recipe, options) as arguments:
                    images = pipeline(
                        **prompts,
                        generator=[torch.Generator("cpu").manual_seed(sample.seed) for sample in samples],
                        **arguments,
                        output_type=kind,
                    ).images
        except ValueError as error:
            raise UserError(f"the model refuses a setting ({first_line(error)}); change that setting") from None
        if kind == "np":
            images = torch.from_numpy(images).permute(0, 3, 1, 2)
        if images.shape[2:] != (recipe.height, recipe.width):
            height, width = images.shape[2:]
            raise UserError(
                f"the model generates {width}x{height} for --width {recipe.width} --height {recipe.height}; "
                "give a size that it supports"
            )
        return images, decode.dtypes if decode else [""] * len(images)

    @contextmanager
    def _report_out_of_memory(self) -> Iterator[None]:
        """Turns every out-of-memory error into an `OutOfMemoryError` that names the batch size to try."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if readable := out_of_memory(self.recipe, self.execution, error):
                raise readable from None
            raise


def environment(pipeline: Any, packages: Sequence[str]) -> dict[str, str]:
    """Returns the versions, hardware and settings of this process that pixels may depend on."""
    found = {**versions(*packages), **_device_facts()}
    denoiser = denoiser_of(pipeline)
    processors = {type(processor).__name__ for processor in getattr(denoiser, "attn_processors", {}).values()}
    backends = {
        str(getattr(processor, "_attention_backend", None) or "default")
        for processor in getattr(denoiser, "attn_processors", {}).values()
    }
    return {**found, "attention": " ".join(sorted(processors)) + f" ({' '.join(sorted(backends))})"}


def _device_facts() -> dict[str, str]:
    if device().type != "cuda":
        return {"device": f"cpu {torch.backends.cpu.get_cpu_capability()}"}
    return {
        "device": torch.cuda.get_device_name(),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
        "driver": _driver(),
        "tf32": f"matmul {torch.backends.cuda.matmul.allow_tf32}, cudnn {torch.backends.cudnn.allow_tf32}",
        "sdpa": " ".join(
            name
            for name, is_on in (
                ("flash", torch.backends.cuda.flash_sdp_enabled()),
                ("efficient", torch.backends.cuda.mem_efficient_sdp_enabled()),
                ("math", torch.backends.cuda.math_sdp_enabled()),
            )
            if is_on
        ),
    }


def _driver() -> str:
    """Returns the version of NVIDIA's driver, which its kernel module reports."""
    try:
        found = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", Path("/proc/driver/nvidia/version").read_text())
    except OSError:
        found = None
    return found.group() if found else "unknown"


def find_broken(pixels: NDArray[np.floating[Any]], images: NDArray[np.uint8]) -> set[int]:
    """Returns the indices of images that have non-finite values, or are one flat color in 8 bits.

    Args:
        pixels: (n, height, width, 3), as the pipeline returns them.
        images: The same images in 8 bits.
    """
    is_finite = np.isfinite(pixels.sum(axis=(1, 2, 3)))
    is_flat = (images == images[:, :1, :1]).all(axis=(1, 2, 3))
    return {int(slot) for slot in np.flatnonzero(~is_finite | is_flat)}
