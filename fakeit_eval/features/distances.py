"""Distances within classes, which both readings of the intra-class distance stand on."""

import numpy as np
from numpy.typing import NDArray

from fakeit_eval.features.chunks import Features, Labels

ROWS = 1024
"""Of a class at a time, against all of the class."""


def distances_by_class(features: Features, labels: Labels) -> list[tuple[float, int]]:
    """For each class with two samples or more, the sum of distances over ordered pairs of them, and the number of pairs.

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
    """Over all ordered pairs of rows; squares of differences are taken in float64, where they may nearly cancel."""
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
    """Some rows, and the squares of their lengths."""
    some = np.asarray(features[rows], dtype=np.float64)
    return some, np.einsum("nd,nd->n", some, some)
