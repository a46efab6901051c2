"""Intra-class distance, averaged over classes: each class's mean distance counts once, however many images it has.

`intra_class_distance` averages over all pairs instead, so that large classes weigh more; the paper does not say which it is.
"""

import numpy as np

from fakeit_eval.features.chunks import Features, Labels
from fakeit_eval.features.distances import distances_by_class


def measure(features: Features, labels: Labels) -> float:
    """Mean over classes of the mean distance between two of their samples; features are (n, d), labels (n,).

    Raises:
        ValueError: no class has two samples.
    """
    return float(np.mean([total / num_pairs for total, num_pairs in distances_by_class(features, labels)]))
