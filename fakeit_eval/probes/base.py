"""What a probe is: a classifier on frozen features, tuned on train -> val, fitted again on both, and tested once.

Each probe is a module of this folder with

    suggest(trial) -> dict                                  one point of its search space
    open_tuning(data, seed) -> Callable[[dict], float]              top-1 on val in percent, of a classifier fitted on train
    open_final(data, seed) -> Callable[[dict], predicted labels]    of the test part, of one fitted on train and val

A module may keep a `SAMPLER`, options of TPE, and `CANDIDATES` where there are only so many points to try. Every trial is
fitted to its end, as the reported one is: trials that are left early, or begin where others ended, lead a search elsewhere.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builders.plugins import module_names

Features = NDArray[np.float32]
"""(n, d)."""
Labels = NDArray[np.int64]
"""(n,), from 0."""
LabeledFeatures = tuple[Features, Labels]
Parameters = dict[str, float]


@dataclass(frozen=True)
class ProbeData:
    train: LabeledFeatures
    val: LabeledFeatures
    test: LabeledFeatures

    @property
    def both(self) -> LabeledFeatures:
        """Train and val."""
        return np.concatenate([self.train[0], self.val[0]]), np.concatenate([self.train[1], self.val[1]])


@dataclass(frozen=True, kw_only=True)
class ProbeScore:
    top1: float
    """Percent, on the test part."""
    mean_per_class: float
    """Percent: the mean over classes of their top-1."""
    num_right: int
    parameters: Parameters
    trials: list[dict[str, Any]] = field(default_factory=list)
    """Of each trial its number, state, parameters and top-1 on val."""


def probe_names() -> list[str]:
    """Of the modules of this folder that are probes."""
    return module_names("fakeit_eval.probes")


def top1(predicted: Labels, labels: Labels) -> float:
    """Percent."""
    return 100 * float((predicted == labels).mean())
