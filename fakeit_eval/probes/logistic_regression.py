"""Logistic regression by scikit-learn's L-BFGS; its C is tuned (supplementary, section 2).

The range of C and the number of iterations are those of the authors' public code; the paper does not give them.
Features are not normalized. They stay on their device as float32, through scikit-learn's array API. Every fit starts
from zero: at large C the solution depends on the start, so a warm-started trial would score differently from the final
classifier."""

from collections.abc import Callable
from typing import Any

import optuna
import torch

from builders.classifiers.logistic_regression import fit, predict
from fakeit_eval.probes.base import LabeledFeatures, Labels, Parameters, ProbeData, top1

C_RANGE = (1e-5, 1e6)
"""Range of the inverse regularization strength C, searched on a log scale."""
TENSOR_SIZE = 1_000_000
"""Number of feature entries (n * d) from which tensors are faster than numpy arrays on a CPU."""


def suggest(trial: optuna.Trial) -> Parameters:
    return {"C": trial.suggest_float("C", *C_RANGE, log=True)}


def open_tuning(data: ProbeData, seed: int) -> Callable[[Parameters], float]:
    train, val = _on_device(data.train, data.val)
    return lambda parameters: top1(predict(fit(parameters["C"], train), val[0]), data.val[1])


def open_final(data: ProbeData, seed: int) -> Callable[[Parameters], Labels]:
    both, test = _on_device(data.both, data.test) if torch.cuda.is_available() else (data.both, data.test)
    return lambda parameters: predict(fit(parameters["C"], both), test[0])


def _on_device(fitted: LabeledFeatures, queries: LabeledFeatures) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Converts both splits to tensors on the device, unless they are so small that numpy arrays are faster."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and fitted[0].size < TENSOR_SIZE:
        return fitted, queries
    first, second = (
        (torch.from_numpy(features).to(device), torch.from_numpy(labels).to(device))
        for features, labels in (fitted, queries)
    )
    return first, second
