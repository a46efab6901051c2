"""Rank correlation of a measure of clones with the accuracy of networks trained on them, over several studies."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_DRAWS = 2_000
"""Draws of the bootstrap."""


@dataclass(frozen=True, kw_only=True)
class Correlation:
    overall: float
    """Spearman's rank correlation over all clones; NaN if the measure is the same for all."""
    interval: tuple[float, float]
    """95 % bootstrap interval of it: clones are drawn within each study."""
    without: dict[str, float]
    """The correlation over the clones of all studies but one, by the study that is left out."""


def rank_correlation(values: NDArray[np.float64], accuracies: NDArray[np.float64], studies: list[str]) -> Correlation:
    """Correlates a measure (n,) with accuracies (n,) of n clones.

    Args:
        studies: Study (n,) that each clone belongs to.
    """
    names = np.array(studies)
    rng = np.random.default_rng(0)
    of_study = [np.flatnonzero(names == name) for name in dict.fromkeys(studies)]
    draws = []
    for _ in range(NUM_DRAWS):
        rows = np.concatenate([rng.choice(own, len(own)) for own in of_study])
        draws.append(_spearman(values[rows], accuracies[rows]))
    known = np.array(draws)[np.isfinite(draws)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    return Correlation(
        overall=_spearman(values, accuracies),
        interval=(float(low), float(high)),
        without={name: _spearman(values[names != name], accuracies[names != name]) for name in dict.fromkeys(studies)},
    )


def _spearman(values: NDArray[np.float64], accuracies: NDArray[np.float64]) -> float:
    from scipy.stats import spearmanr

    if len(np.unique(values)) < 2 or len(np.unique(accuracies)) < 2:
        return float("nan")
    return float(spearmanr(values, accuracies).statistic)
