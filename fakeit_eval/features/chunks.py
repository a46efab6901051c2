"""Iterates over features in chunks of rows, since they may lie on disk and be much larger than memory."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fakeit_eval.features.rows import Rows

Features = Rows
"""(n, d)."""
Labels = NDArray[np.int64]
"""(n,)."""
ROWS = 8192
"""Rows of a chunk."""


def chunks(features: Features, rows: int = ROWS) -> Iterator[NDArray[np.float64]]:
    """Yields chunks (at most `rows`, d) as float64, so that sums over them lose little precision."""
    for start in range(0, len(features), rows):
        yield np.asarray(features[start : start + rows], dtype=np.float64)
