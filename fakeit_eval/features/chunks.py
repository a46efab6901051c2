"""Features a part at a time: they may lie on a disk and be many times the memory."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fakeit_eval.features.rows import Rows

Features = Rows
"""(n, d)."""
Labels = NDArray[np.int64]
"""(n,)."""
ROWS = 8192


def chunks(features: Features, rows: int = ROWS) -> Iterator[NDArray[np.float64]]:
    """Rows as float64, for sums that stay exact."""
    for start in range(0, len(features), rows):
        yield np.asarray(features[start : start + rows], dtype=np.float64)
