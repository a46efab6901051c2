"""Feature redundancy: the mean absolute Pearson correlation of two dimensions (supplementary, Fig. 1c)."""

import numpy as np

from fakeit_eval.features.chunks import Features, Labels, chunks


def measure(features: Features, labels: Labels) -> float:
    """(1 / d²) Σᵢⱼ |ρ(X:,i, X:,j)| of features (n, d), including the pairs i = j; labels are unused.

    The correlation of a constant dimension counts as 0, also with itself.
    """
    mean = sum(chunk.sum(0) for chunk in chunks(features)) / len(features)
    covariance = sum((chunk - mean).T @ (chunk - mean) for chunk in chunks(features))
    deviation = np.sqrt(np.diag(covariance))
    scale = np.where(deviation > 1e-12 * max(1.0, float(np.abs(mean).max())), deviation, np.inf)
    return float(np.abs(covariance / scale / scale[:, None]).mean())
