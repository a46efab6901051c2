"""Mean distance of two images with the same label: of one class, or of one prompt. More is more diverse."""

import numpy as np
from numpy.typing import NDArray

from fakeit_eval.dataset_measures.estimate import Estimate

ROWS = 1024


def pairwise_distance(unit: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[Estimate, int]:
    """The mean l2 distance over all pairs with the same label; features (n, d) have length 1, so it is between 0 and 2.

    Args:
        labels: Label (n,) of each image, such as its class.

    Returns:
        The estimate, and the number of pairs.

    Raises:
        ValueError: no two images have the same label.
    """
    totals, num_others = np.zeros(len(unit)), np.zeros(len(unit))
    order = np.argsort(labels, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        totals[rows] = _sums_of_distances(unit[rows])
        num_others[rows] = len(rows) - 1
    num_pairs = int(num_others.sum()) // 2
    if not num_pairs:
        raise ValueError("no two images belong together")
    value = float(totals.sum() / num_others.sum())
    # A ratio of two sums: its influences are those of the numerator less the value times those of the denominator.
    terms = 2 * (totals - value * num_others) / num_others.mean()
    return Estimate(value=value, synthetic=terms, low=0.0, high=2.0), num_pairs


def _sums_of_distances(unit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum (n,) of the distances of each row to all others."""
    sums, lengths = np.zeros(len(unit)), np.einsum("nd,nd->n", unit, unit)
    for start in range(0, len(unit), ROWS):
        rows = unit[start : start + ROWS]
        squares = np.maximum(lengths[start : start + ROWS, None] + lengths - 2 * rows @ unit.T, 0)
        squares[np.arange(len(rows)), start + np.arange(len(rows))] = 0
        sums[start : start + ROWS] = np.sqrt(squares).sum(1)
    return sums
