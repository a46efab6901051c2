"""Sums the distances within each class, for both variants of the intra-class distance."""

import numpy as np
from numpy.typing import NDArray

from fakeit_eval.features.chunks import Features, Labels

ROWS = 1024
"""Rows of one class in a block; distances are computed block by block."""


def distances_by_class(features: Features, labels: Labels) -> list[tuple[float, int]]:
    """Sums the l2 distances within each class of features (n, d) with labels (n,).

    Returns:
        For each class with two samples or more, the sum over its ordered pairs of samples, and the number of pairs.

    Raises:
        ValueError: no class has two samples.
    """
    order = np.argsort(labels, kind="stable")
    classes = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    found = [
        (_sum_of_distances(features, np.sort(rows)), len(rows) * (len(rows) - 1)) for rows in classes if len(rows) > 1
    ]
    if not found:
        raise ValueError("no class has two samples, so there is no distance within one")
    return found


def _sum_of_distances(features: Features, rows: NDArray[np.int64]) -> float:
    """Sum of distances over all ordered pairs of rows, in float64, since squared differences may nearly cancel."""
    total = 0.0
    for start in range(0, len(rows), ROWS):
        some, squares = _block(features, rows[start : start + ROWS])
        for other in range(0, start + 1, ROWS):
            others, other_squares = (some, squares) if other == start else _block(features, rows[other : other + ROWS])
            found = squares[:, None] + other_squares[None] - 2 * some @ others.T
            if start == other:
                np.fill_diagonal(found, 0.0)
            total += (1 if start == other else 2) * float(np.sqrt(np.maximum(found, 0)).sum())
    return total


def _block(features: Features, rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns rows (n, d) as float64, and their squared lengths (n,)."""
    some = np.asarray(features[rows], dtype=np.float64)
    return some, np.einsum("nd,nd->n", some, some)
