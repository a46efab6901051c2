"""Features a part at a time: they may lie on a disk, memory-mapped, and be many times the memory."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32]
"""(n, d)."""
Labels = NDArray[np.int64]
"""(n,)."""
ROWS = 8192


def chunks(features: Features, rows: int = ROWS) -> Iterator[NDArray[np.float64]]:
    """Rows as float64, for sums that stay exact."""
    for start in range(0, len(features), rows):
        yield np.asarray(features[start : start + rows], dtype=np.float64)


def normalised(features: Features, rows: int = ROWS) -> Features:
    """Rows of length 1; those of zeros stay. Shape and type are kept."""
    found = np.empty(features.shape, dtype=np.float32)
    for start in range(0, len(features), rows):
        part = np.asarray(features[start : start + rows], dtype=np.float64)
        lengths = np.linalg.norm(part, axis=1, keepdims=True)
        found[start : start + rows] = part / np.where(lengths > 0, lengths, 1)
    return found
