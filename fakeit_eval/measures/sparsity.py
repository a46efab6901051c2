"""Sparsity: the fraction of feature entries that are nearly zero (supplementary, section 3.3, Fig. 1a)."""

import numpy as np

from fakeit_eval.features.chunks import ROWS, Features, Labels

THRESHOLD = 1e-5
"""Absolute value below which an entry counts as zero."""


def measure(features: Features, labels: Labels) -> float:
    """Fraction in [0, 1] of the entries of features (n, d) below `THRESHOLD` in absolute value; labels are unused."""
    num_small = sum(
        int((np.abs(features[start : start + ROWS]) < THRESHOLD).sum()) for start in range(0, len(features), ROWS)
    )
    return num_small / (features.shape[0] * features.shape[1])
