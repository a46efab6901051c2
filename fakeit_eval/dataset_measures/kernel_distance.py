"""Kernel distance: the unbiased squared maximum mean discrepancy with the kernel (x·y / d + 1)³ (Bińkowski et al., 2018).

Unlike the Fréchet distance it is unbiased, so it may be slightly negative for sets of the same distribution.
"""

import numpy as np
from numpy.typing import NDArray

from fakeit_eval.dataset_measures.estimate import Estimate

Features = NDArray[np.float64]
ROWS = 2048


def kernel_distance(synthetic: Features, real: Features) -> Estimate:
    """The kernel distance of features (n, d) and (m, d), n and m at least 2; all pairs are used, not subsets."""
    within, other_within = _sums_within(synthetic), _sums_within(real)
    across, other_across = _sums_across(synthetic, real)
    mean, other_mean = within / (len(synthetic) - 1), other_within / (len(real) - 1)
    across, other_across = across / len(real), other_across / len(synthetic)
    return Estimate(
        value=float(mean.mean() + other_mean.mean() - 2 * across.mean()),
        synthetic=2 * (mean - across),
        real=2 * (other_mean - other_across),
    )


def _kernel(rows: Features, others: Features) -> Features:
    # Two products are many times faster than a power.
    base = rows @ others.T / rows.shape[1] + 1
    return base * base * base


def _sums_within(features: Features) -> Features:
    """Sums (n,) of the kernel of each row with all other rows; blocks below the diagonal follow by symmetry."""
    sums = np.zeros(len(features))
    for start in range(0, len(features), ROWS):
        rows = features[start : start + ROWS]
        block = _kernel(rows, rows)
        sums[start : start + ROWS] += block.sum(1) - np.diagonal(block)
        for other in range(start + ROWS, len(features), ROWS):
            block = _kernel(rows, features[other : other + ROWS])
            sums[start : start + ROWS] += block.sum(1)
            sums[other : other + ROWS] += block.sum(0)
    return sums


def _sums_across(features: Features, others: Features) -> tuple[Features, Features]:
    """Sums of the kernel over all pairs of a row of `features` (n,) and a row of `others` (m,), by either row."""
    sums, other_sums = np.zeros(len(features)), np.zeros(len(others))
    for start in range(0, len(features), ROWS):
        for other in range(0, len(others), ROWS):
            block = _kernel(features[start : start + ROWS], others[other : other + ROWS])
            sums[start : start + ROWS] += block.sum(1)
            other_sums[other : other + ROWS] += block.sum(0)
    return sums, other_sums
