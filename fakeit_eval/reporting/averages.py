"""Means over datasets, where variants of one dataset are averaged first; reports, studies and figures share this rule.

ImageNet-v2, which is published in three variants, thus weighs as much as ImageNet-Val.
"""

import statistics
from collections.abc import Iterable

from fakeit_eval.test_sets.base import read_test_sets


def family(name: str) -> str:
    """The dataset that a test set is a variant of; only the variants of ImageNet-v2 differ from their dataset."""
    row = read_test_sets().get(name)
    return row.family if row else name


def family_means(values: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The mean over the variants of each dataset; `values` are pairs of a test set's name and its value."""
    found: dict[str, list[float]] = {}
    for name, value in values:
        found.setdefault(family(name), []).append(value)
    return {name: statistics.mean(some) for name, some in found.items()}


def mean_of_sets(values: Iterable[tuple[str, float]]) -> float:
    """The mean over datasets, of which variants are averaged first."""
    return statistics.mean(family_means(values).values())
