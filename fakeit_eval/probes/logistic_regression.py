"""A linear classifier on frozen features: logistic regression by L-BFGS, its C tuned by Optuna (supplementary, section 2).

C is searched on train -> val, the classifier fitted again on train + val, and the test part looked at once. The range of C and
the number of iterations are those of the authors' public code; the paper does not give them.
"""

from dataclasses import dataclass

import numpy as np
import optuna
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from builders.format.errors import UserError

Features = NDArray[np.float32]
Labels = NDArray[np.int64]

C_RANGE = (1e-5, 1e6)
MAX_ITERATIONS = 2000


@dataclass(frozen=True)
class ProbeScore:
    top1: float
    """Percent, on the test part."""
    mean_per_class: float
    """Percent: the mean over classes of their top-1."""
    parameters: dict[str, float]
    trials: list[dict[str, float]]
    """Parameters and top-1 on val of every trial."""


def draw_validation(
    features: Features, labels: Labels, share: float, seed: int
) -> tuple[tuple[Features, Labels], tuple[Features, Labels]]:
    """Train and val parts of a training set that has no val split, stratified and seeded.

    Raises:
        UserError: a class has a single image, or val would not hold one of each.
    """
    if np.bincount(labels)[np.unique(labels)].min() < 2 or share * len(labels) < len(np.unique(labels)):
        raise UserError(f"{len(labels)} images are too few to draw a val part of every class from; give --val")
    train, val = train_test_split(np.arange(len(labels)), test_size=share, random_state=seed, stratify=labels)
    return (features[train], labels[train]), (features[val], labels[val])


def probe(
    train: tuple[Features, Labels],
    val: tuple[Features, Labels],
    test: tuple[Features, Labels],
    *,
    num_trials: int,
    seed: int,
) -> ProbeScore:
    """Tunes on train -> val, refits on both, and scores the test part. Features are (n, d), labels (n,)."""

    def objective(trial: optuna.Trial) -> float:
        c = trial.suggest_float("C", *C_RANGE, log=True)
        return _accuracy(_fit(train, c), val)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(objective, n_trials=num_trials)
    both = (np.concatenate([train[0], val[0]]), np.concatenate([train[1], val[1]]))
    model = _fit(both, study.best_params["C"])
    hits = model.predict(test[0]) == test[1]
    per_class = [hits[test[1] == label].mean() for label in np.unique(test[1])]
    return ProbeScore(
        top1=100 * float(hits.mean()),
        mean_per_class=100 * float(np.mean(per_class)),
        parameters=dict(study.best_params),
        trials=[{**trial.params, "top1": float(trial.value or 0.0)} for trial in study.trials],
    )


def _fit(data: tuple[Features, Labels], c: float) -> LogisticRegression:
    return LogisticRegression(C=c, max_iter=MAX_ITERATIONS).fit(*data)


def _accuracy(model: LogisticRegression, data: tuple[Features, Labels]) -> float:
    return 100 * float((model.predict(data[0]) == data[1]).mean())
