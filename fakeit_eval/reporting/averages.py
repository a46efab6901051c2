"""Means over the data sets of a group, the variants of one set averaged first: the one rule of reports, studies and figures.

So ImageNet-v2, which is published in three variants, weighs as much as ImageNet-Val.
"""

import statistics
from collections.abc import Iterable

from fakeit_eval.test_sets.base import read_test_sets


def family(name: str) -> str:
    """The data set that a test set is a variant of: itself for all but v2's."""
    row = read_test_sets().get(name)
    return row.family if row else name


def family_means(values: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The mean of each data set's variants; values come with their set's name."""
    found: dict[str, list[float]] = {}
    for name, value in values:
        found.setdefault(family(name), []).append(value)
    return {name: statistics.mean(some) for name, some in found.items()}


def mean_of_sets(values: Iterable[tuple[str, float]]) -> float:
    """The mean over data sets, variants averaged first."""
    return statistics.mean(family_means(values).values())
