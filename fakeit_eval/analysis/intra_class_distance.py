"""Intra-class distance: the mean l2 distance between two samples of one class (supplementary, section 3.3, Fig. 1b)."""

import numpy as np
from numpy.typing import NDArray

from fakeit_eval.analysis.chunks import Features, Labels

ROWS = 1024
"""Of a class at a time, against all of the class."""


def measure(features: Features, labels: Labels) -> float:
    """Mean over all pairs of different samples with the same label; features are (n, d), labels (n,).

    Raises:
        ValueError: no class has two samples.
    """
    total, num_pairs = 0.0, 0
    order = np.argsort(labels, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        if len(rows) > 1:
            total += _sum_of_distances(np.asarray(features[np.sort(rows)], dtype=np.float32))
            num_pairs += len(rows) * (len(rows) - 1)
    if not num_pairs:
        raise ValueError("no class has two samples, so there is no distance within one")
    return total / num_pairs


def _sum_of_distances(features: Features) -> float:
    """Over all ordered pairs; squares of differences are taken in float64, where they may nearly cancel."""
    squares = np.einsum("nd,nd->n", features, features, dtype=np.float64)
    total = 0.0
    for start in range(0, len(features), ROWS):
        some: NDArray[np.float64] = features[start : start + ROWS].astype(np.float64)
        for other in range(0, len(features), ROWS):
            products = some @ features[other : other + ROWS].astype(np.float64).T
            found = squares[start : start + ROWS, None] + squares[None, other : other + ROWS] - 2 * products
            if start == other:
                np.fill_diagonal(found, 0.0)
            total += float(np.sqrt(np.maximum(found, 0)).sum())
    return total
