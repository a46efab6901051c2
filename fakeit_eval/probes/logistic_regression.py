"""Logistic regression by L-BFGS, scikit-learn's; its C is tuned (supplementary, section 2).

The range of C and the number of iterations are those of the authors' public code; the paper does not give them. Features are
taken as they are.

The result is one plain fit from zero with the C that was found. The search alone is quicker than plain fits: features are
converted once and stay on their device (scikit-learn's array API; float32), every fit begins at the weights of the nearest C
so far, and fits go in stages, so that bad ones are left early.
"""

import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("SCIPY_ARRAY_API", "1")  # read when scipy is imported first

import numpy as np
import optuna
import sklearn
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from fakeit_eval.probes.base import Labels, Parameters, Part, ProbeData, Report, top1

C_RANGE = (1e-5, 1e6)
MAX_ITERATIONS = 2000
TENSOR_SIZE = 1_000_000
"""Entries of a part from which on tensors are quicker than numpy's arrays on a CPU."""
FIRST_STAGE = 20
"""Iterations before the first look at val; each stage has twice those of the one before."""
PRUNER = optuna.pruners.MedianPruner(n_startup_trials=5)


def suggest(trial: optuna.Trial) -> Parameters:
    return {"C": trial.suggest_float("C", *C_RANGE, log=True)}


def open_tuning(data: ProbeData, seed: int) -> Callable[[Parameters, Report], float]:
    train, val = _on_device(data.train, data.val)
    weights = _Weights()

    def tune(parameters: Parameters, report: Report) -> float:
        found = 0.0
        for stage, model in enumerate(_stages(train, parameters["C"], weights)):
            found = top1(_predict(model, val[0]), data.val[1])
            report(stage, found)
        return found

    return tune


def open_final(data: ProbeData, seed: int) -> Callable[[Parameters], Labels]:
    both, test = _on_device(data.both, data.test) if torch.cuda.is_available() else (data.both, data.test)

    def fit_and_predict(parameters: Parameters) -> Labels:
        model = LogisticRegression(C=parameters["C"], max_iter=MAX_ITERATIONS)
        _fit(model, *both)
        return _predict(model, test[0])

    return fit_and_predict


class _Weights:
    """Of the fits so far, by log C."""

    def __init__(self) -> None:
        self.known: dict[float, Any] = {}

    def start(self, model: LogisticRegression, c: float) -> None:
        if self.known:
            nearest = min(self.known, key=lambda known: abs(known - math.log(c)))
            model.classes_, model.coef_, model.intercept_ = self.known[nearest]

    def keep(self, model: LogisticRegression, c: float) -> None:
        self.known[math.log(c)] = (model.classes_, model.coef_, model.intercept_)


def _stages(train: tuple[Any, Any], c: float, weights: _Weights) -> Iterator[LogisticRegression]:
    """The model after each stage, until it has converged."""
    model = LogisticRegression(C=c, max_iter=FIRST_STAGE, warm_start=True)
    weights.start(model, c)
    num_iterations = 0
    while True:
        _fit(model, *train)
        num_iterations += model.max_iter
        weights.keep(model, c)
        yield model
        if int(np.max(np.asarray(model.n_iter_))) < model.max_iter or num_iterations >= MAX_ITERATIONS:
            return
        model.max_iter = min(2 * model.max_iter, MAX_ITERATIONS - num_iterations)


def _fit(model: LogisticRegression, features: Any, labels: Any) -> None:
    with _array_api(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, labels)


def _on_device(fitted: Part, asked: Part) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Tensors, or numpy's arrays where they are so small that calls into torch would cost more than they save."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and fitted[0].size < TENSOR_SIZE:
        return fitted, asked
    first, second = (
        (torch.from_numpy(features).to(device), torch.from_numpy(labels).to(device))
        for features, labels in (fitted, asked)
    )
    return first, second


def _predict(model: LogisticRegression, features: Any) -> Labels:
    with _array_api():
        return np.asarray(torch.as_tensor(model.predict(features)).cpu(), dtype=np.int64)


@contextmanager
def _array_api() -> Iterator[None]:
    with sklearn.config_context(array_api_dispatch=True):
        yield
