"""Intra-class distance: the mean l2 distance over pairs of samples of a class (supplementary, section 3.3, Fig. 1b)."""

from fakeit_eval.features.chunks import Features, Labels
from fakeit_eval.features.distances import distances_by_class


def measure(features: Features, labels: Labels) -> float:
    """Mean over all pairs of different samples with the same label; features are (n, d), labels (n,).

    Raises:
        ValueError: no class has two samples.
    """
    found = distances_by_class(features, labels)
    return sum(total for total, _ in found) / sum(num_pairs for _, num_pairs in found)
