"""Coding length: how many nats a sample's feature takes at a given precision (supplementary, Fig. 1d).

The formula is the average per sample as it stands; it is not divided by their number again.
"""

import numpy as np

from fakeit_eval.features.chunks import Features, Labels, chunks

PRECISION = 0.5
"""ε²."""


def measure(features: Features, labels: Labels) -> float:
    """½ log det(I + d / (n ε²) XᵀX) of features (n, d); labels are not looked at."""
    num_samples, size = features.shape
    gram = sum(chunk.T @ chunk for chunk in chunks(features))
    return float(np.linalg.slogdet(np.eye(size) + size / (num_samples * PRECISION) * gram)[1]) / 2
