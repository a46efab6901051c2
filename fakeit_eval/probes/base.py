"""The interface of probes, classifiers on frozen features.

A probe is tuned on train -> val, fitted again on both, and tested once. Each probe is a module of this folder with

    suggest(trial) -> dict              proposes the hyper-parameters of a trial
    open_tuning(data, seed) -> f        f(hyper-parameters) fits on train and returns top-1 on val, in percent
    open_final(data, seed) -> f         f(hyper-parameters) fits on train and val, and returns labels (n,) for test

A module may have `SAMPLER`, options of Optuna's TPESampler, and `CANDIDATES`, the complete list of hyper-parameters to
try. Every trial is fitted to its end and from the same start, as the final classifier is. Pruned or warm-started
trials would get other scores, and the search would choose other hyper-parameters."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builders.plugins import module_names

Features = NDArray[np.float32]
"""Features (n, d)."""
Labels = NDArray[np.int64]
"""Labels (n,), class numbers from 0."""
LabeledFeatures = tuple[Features, Labels]
Parameters = dict[str, float]
"""Hyper-parameters of a probe, by name."""


@dataclass(frozen=True)
class ProbeData:
    """Features (n, d) and labels (n,) of the three splits; n differs between them."""

    train: LabeledFeatures
    val: LabeledFeatures
    test: LabeledFeatures

    @property
    def both(self) -> LabeledFeatures:
        """Train and val together."""
        return np.concatenate([self.train[0], self.val[0]]), np.concatenate([self.train[1], self.val[1]])


@dataclass(frozen=True, kw_only=True)
class ProbeScore:
    top1: float
    """Top-1 on test, in percent."""
    mean_per_class: float
    """Mean over classes of their top-1 on test, in percent."""
    num_right: int
    """Number of test images that are classified correctly."""
    parameters: Parameters
    """The best hyper-parameters on val."""
    trials: list[dict[str, Any]] = field(default_factory=list)
    """Number, state, hyper-parameters and top-1 on val, in percent, of each trial."""


def probe_names() -> list[str]:
    """Names of all probes, which are the modules of this folder."""
    return module_names("fakeit_eval.probes")


def top1(predicted: Labels, labels: Labels) -> float:
    """Percentage of predicted labels (n,) that equal the true ones (n,)."""
    return 100 * float((predicted == labels).mean())
