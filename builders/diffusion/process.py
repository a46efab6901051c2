"""The device of this process, its settings that bytes depend on, and the error for too little memory."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch

from builders.errors import OutOfMemoryError, is_out_of_memory
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe


@lru_cache(maxsize=1)
def device() -> torch.device:
    """Returns the CUDA GPU, or else the CPU. Apple's mps is not used: nobody has compared its images with a CPU's."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        warnings.warn(
            "images are generated on the CPU: this machine has an Apple GPU, and only CUDA GPUs are used", stacklevel=1
        )
    return torch.device("cpu")


def out_of_memory(recipe: Recipe, execution: Execution, error: Exception) -> OutOfMemoryError | None:
    """Returns the error to report for a batch that does not fit into memory (GPU or CPU); None for any other error."""
    if not is_out_of_memory(error):
        return None
    size = execution.batch_size
    what = f"out of memory with batches of {size} at {recipe.width}x{recipe.height}"
    ways = "try --vae-slicing, or a smaller model" if size == 1 else f"try --batch-size {size // 2}, or auto"
    return OutOfMemoryError(f"{what}; {ways}")


@contextmanager
def process_settings(execution: Execution) -> Iterator[None]:
    """Sets the process-wide settings that bytes depend on (CPU threads, cuDNN's algorithms), then restores them."""
    before = torch.get_num_threads()
    if before != execution.num_threads:
        torch.set_num_threads(execution.num_threads)
    try:
        # With `benchmark`, cuDNN times algorithms to choose one; some algorithms sum in a varying order.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
            yield
    finally:
        if before != execution.num_threads:
            torch.set_num_threads(before)
