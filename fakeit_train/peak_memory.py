"""The peak memory of a training process."""

import sys

import torch

KIB = 1024 if sys.platform != "darwin" else 1
"""Unit of `ru_maxrss` in bytes: KiB, but single bytes on macOS."""


def memory_gib(device: torch.device) -> float:
    """Returns the peak memory so far, in GiB: allocated memory of a GPU, or resident memory of this process on a CPU.

    Returns NaN on Windows, which does not report resident memory in this way.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB / 2**30
