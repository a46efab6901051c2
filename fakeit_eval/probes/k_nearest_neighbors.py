"""k nearest neighbors by cosine, as in DINO (Caron et al., 2021).

k is tuned. Nothing is fitted. The neighbors are searched once, and all values of k use them.
"""

from collections.abc import Callable

import optuna

from builders.classifiers.nearest_neighbors import nearest_neighbors, vote
from fakeit_eval.probes.base import Labels, Parameters, ProbeData, top1

CHOICES = (1, 5, 10, 20, 50, 100, 200)
CANDIDATES = tuple({"k": k} for k in CHOICES)


def suggest(trial: optuna.Trial) -> Parameters:
    return {"k": trial.suggest_int("k", min(CHOICES), max(CHOICES))}


def open_tuning(data: ProbeData, seed: int) -> Callable[[Parameters], float]:
    neighbors = nearest_neighbors(data.train, data.val[0], max(CHOICES))
    return lambda parameters: top1(vote(*neighbors, parameters["k"]), data.val[1])


def open_final(data: ProbeData, seed: int) -> Callable[[Parameters], Labels]:
    neighbors = nearest_neighbors(data.both, data.test[0], max(CHOICES))
    return lambda parameters: vote(*neighbors, parameters["k"])
