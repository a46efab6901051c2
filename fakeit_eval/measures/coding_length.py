"""Coding length: the average number of nats that encode a feature at a given precision (supplementary, Fig. 1d).

The paper's formula is already an average over samples, so it is not divided by their number again.
"""

import numpy as np

from fakeit_eval.features.chunks import Features, Labels, chunks

PRECISION = 0.5
"""ε², the squared precision."""


def measure(features: Features, labels: Labels) -> float:
    """½ log det(I + d / (n ε²) XᵀX) of features (n, d); labels are unused."""
    num_samples, size = features.shape
    gram = sum(chunk.T @ chunk for chunk in chunks(features))
    return float(np.linalg.slogdet(np.eye(size) + size / (num_samples * PRECISION) * gram)[1]) / 2
