"""Intra-class distance, averaged over classes: each class's mean distance has the same weight.

`intra_class_distance` averages over all pairs instead, which gives large classes more weight. The paper does not say
which of both it uses."""

import numpy as np

from fakeit_eval.features.chunks import Features, Labels
from fakeit_eval.features.distances import distances_by_class


def measure(features: Features, labels: Labels) -> float:
    """Mean over classes of the mean distance between two of their samples; features are (n, d), labels (n,).

    Raises:
        ValueError: no class has two samples.
    """
    return float(np.mean([total / num_pairs for total, num_pairs in distances_by_class(features, labels)]))
