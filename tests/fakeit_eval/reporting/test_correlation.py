"""The rank correlation of a measure with accuracy, over studies."""

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from fakeit_eval.reporting.correlation import rank_correlation

STUDIES = ["a"] * 10 + ["b"] * 10 + ["c"] * 10


def test_rank_correlation__is_spearmans_over_all_and_without_each_study() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=30)
    accuracies = values + rng.normal(size=30)
    found = rank_correlation(values, accuracies, STUDIES)
    assert found.overall == pytest.approx(spearmanr(values, accuracies).statistic)
    assert found.without["b"] == pytest.approx(
        spearmanr(np.delete(values, range(10, 20)), np.delete(accuracies, range(10, 20))).statistic
    )
    low, high = found.interval
    assert low < found.overall < high and 0.1 < high - low < 1


def test_rank_correlation__one_study_that_makes_it_all_is_seen() -> None:
    rng = np.random.default_rng(0)
    values, accuracies = rng.normal(size=30), rng.normal(size=30)
    values[:10] += 10
    accuracies[:10] += 10
    found = rank_correlation(values, accuracies, STUDIES)
    assert found.overall > 0.6
    assert min(found.without.values()) == found.without["a"] < 0.4


def test_rank_correlation__a_measure_that_is_always_the_same_has_none() -> None:
    found = rank_correlation(np.ones(30), np.arange(30.0), STUDIES)
    assert math.isnan(found.overall) and all(map(math.isnan, found.interval))
