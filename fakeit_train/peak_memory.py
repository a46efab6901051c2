"""How much memory training takes."""

import sys

import torch

KIB = 1024 if sys.platform != "darwin" else 1
"""Unit of getrusage's maximum."""


def memory_gib(device: torch.device) -> float:
    """The most that was in use so far: of the GPU's memory, or without one of this process's. NaN where nobody counts it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB / 2**30
