"""How much memory training takes."""

import resource
import sys

import torch

KIB = 1024 if sys.platform != "darwin" else 1
"""Unit of getrusage's maximum."""


def memory_gib(device: torch.device) -> float:
    """The most that was in use so far: of the GPU's memory, or without one of this process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB / 2**30
