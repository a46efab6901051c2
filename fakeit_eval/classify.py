"""Scores a model's own classifier: top-1, top-5, per-class accuracy and confusion.

Labels are matched by class id, never by position. If a test set has only some of the model's classes, only their logits
compete. If the model has only some of the test set's classes, images of the other classes are left out. A model of
ImageNet-100 is thus tested on its 100 classes of Val, v2 and Sketch, on 19 of R and on 15 of A.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builders.errors import UserError
from fakeit_eval.reporting.intervals import interval


@dataclass(frozen=True)
class Classification:
    top1: float
    """Percent."""
    top5: float
    """Percent; with fewer than five classes, every prediction counts as right."""
    top1_interval: list[float]
    """95 % confidence interval of `top1`: [low, high] in percent."""
    top5_interval: list[float]
    """95 % confidence interval of `top5`: [low, high] in percent."""
    per_class: dict[str, float]
    """Top-1 in percent of each class that has images, by class id."""
    confusion: dict[str, dict[str, int]]
    """Number of images by true class, then by predicted class; zeros are left out."""

    def fields(self) -> dict[str, Any]:
        """The fields of a result file other than its value."""
        return {
            "interval": self.top1_interval,
            "top5": round(self.top5, 4),
            "top5_interval": self.top5_interval,
            "per_class": self.per_class,
            "confusion": self.confusion,
        }


def shared_rows(
    labels: NDArray[np.int64], test_classes: Sequence[str], model_classes: Sequence[str]
) -> NDArray[np.int64]:
    """Indices of the images whose class the model has.

    Args:
        labels: Indices (n,) into `test_classes`.

    Raises:
        UserError: the model has none of the classes.
    """
    known = set(model_classes)
    is_known = np.array([name in known for name in test_classes], dtype=bool)
    rows: NDArray[np.int64] = np.flatnonzero(is_known[labels])
    if not len(rows):
        raise UserError(
            f"the model knows none of the {len(test_classes)} classes of the test set, such as '{test_classes[0]}'; "
            "test it on a set of its own classes, or use 'fakeit-eval probe'"
        )
    return rows


def classify(
    logits: NDArray[np.float32], labels: NDArray[np.int64], test_classes: Sequence[str], model_classes: Sequence[str]
) -> Classification:
    """Scores logits (n, model classes) against labels (n,), indices into `test_classes` that the model knows."""
    position = {name: number for number, name in enumerate(model_classes)}
    competing = [name for name in test_classes if name in position]
    columns = np.array([position[name] for name in competing])
    number_of = {name: number for number, name in enumerate(competing)}
    truth = np.array([number_of.get(name, -1) for name in test_classes])[labels]
    ranked = np.argsort(-logits[:, columns], axis=1, kind="stable")[:, :5]
    hits = ranked == truth[:, None]
    first, five = int(hits[:, 0].sum()), int(hits.any(axis=1).sum())
    return Classification(
        100 * first / len(labels),
        100 * five / len(labels),
        interval(first, len(labels)),
        interval(five, len(labels)),
        {
            name: round(100 * float(hits[truth == number, 0].mean()), 4)
            for number, name in enumerate(competing)
            if (truth == number).any()
        },
        _confusion(truth, ranked[:, 0], competing),
    )


def _confusion(truth: NDArray[np.int64], found: NDArray[np.int64], names: list[str]) -> dict[str, dict[str, int]]:
    pairs, counts = np.unique(np.stack([truth, found], axis=1), axis=0, return_counts=True)
    confusion: dict[str, dict[str, int]] = {}
    for (is_class, taken_for), count in zip(pairs.tolist(), counts.tolist(), strict=True):
        confusion.setdefault(names[is_class], {})[names[taken_for]] = count
    return confusion
