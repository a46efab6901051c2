"""Makes features whose classes a linear classifier separates almost completely."""

import numpy as np

from fakeit_eval.probes.base import LabeledFeatures, ProbeData


def blobs(num_classes: int = 3, num: int = 300, noise: float = 1.0) -> ProbeData:
    """Makes train, val and test, with classes as normal clouds around the corners of a simplex in eight dimensions."""
    return ProbeData(*(_split(num_classes, num, noise, seed) for seed in range(3)))


def _split(num_classes: int, num: int, noise: float, seed: int) -> LabeledFeatures:
    rng = np.random.default_rng(seed)
    labels = np.arange(num) % num_classes
    return (np.eye(8)[labels] * 2 + noise * rng.normal(size=(num, 8))).astype(np.float32), labels
