"""Scores a model's own classifier: top-1, top-5, per-class accuracy, confusion, likelihood and calibration.

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

NUM_BINS = 15
"""Bins of the calibration error, as in Guo et al., 2017."""


@dataclass(frozen=True, kw_only=True)
class ImageScores:
    """What a classifier says about each of n images."""

    names: list[str]
    """Class ids that compete."""
    truth: NDArray[np.int64]
    """True class (n,), an index into `names`."""
    ranked: NDArray[np.int64]
    """The up to five likeliest classes (n, 5), the likeliest first."""
    confidence: NDArray[np.float64]
    """Probability (n,) of the likeliest class."""
    loss: NDArray[np.float64]
    """Negative log-likelihood (n,) of the true class, in nats."""

    @property
    def is_right(self) -> NDArray[np.bool_]:
        return self.ranked[:, 0] == self.truth


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
    negative_log_likelihood: float
    """Mean over images, in nats."""
    calibration_error: float
    """Expected calibration error in percent: mean difference of confidence and accuracy over `NUM_BINS` equal bins."""
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
            "negative_log_likelihood": round(self.negative_log_likelihood, 6),
            "calibration_error": round(self.calibration_error, 4),
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


def score_images(
    logits: NDArray[np.float32], labels: NDArray[np.int64], test_classes: Sequence[str], model_classes: Sequence[str]
) -> ImageScores:
    """Compares logits (n, model classes) with labels (n,), indices into `test_classes` that the model knows."""
    position = {name: number for number, name in enumerate(model_classes)}
    competing = [name for name in test_classes if name in position]
    columns = np.array([position[name] for name in competing])
    number_of = {name: number for number, name in enumerate(competing)}
    truth = np.array([number_of.get(name, -1) for name in test_classes])[labels]
    chosen = logits[:, columns]
    ranked = np.argsort(-chosen, axis=1, kind="stable")[:, :5]
    shifted = chosen.astype(np.float64) - chosen.max(axis=1, keepdims=True)
    log_total = np.log(np.exp(shifted).sum(axis=1))
    rows = np.arange(len(labels))
    return ImageScores(
        names=competing,
        truth=truth,
        ranked=ranked,
        confidence=np.exp(-log_total),
        loss=log_total - shifted[rows, truth],
    )


def classify(scores: ImageScores) -> Classification:
    """Summarizes the scores of images."""
    hits, truth, num_images = scores.ranked == scores.truth[:, None], scores.truth, len(scores.truth)
    first, five = int(hits[:, 0].sum()), int(hits.any(axis=1).sum())
    return Classification(
        100 * first / num_images,
        100 * five / num_images,
        interval(first, num_images),
        interval(five, num_images),
        float(scores.loss.mean()),
        100 * _calibration_error(scores.confidence, scores.is_right),
        {
            name: round(100 * float(hits[truth == number, 0].mean()), 4)
            for number, name in enumerate(scores.names)
            if (truth == number).any()
        },
        _confusion(truth, scores.ranked[:, 0], scores.names),
    )


def _calibration_error(confidence: NDArray[np.float64], is_right: NDArray[np.bool_]) -> float:
    bins = np.minimum((confidence * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    gaps = np.bincount(bins, weights=confidence - is_right, minlength=NUM_BINS)
    return float(np.abs(gaps).sum()) / len(confidence)


def _confusion(truth: NDArray[np.int64], found: NDArray[np.int64], names: list[str]) -> dict[str, dict[str, int]]:
    pairs, counts = np.unique(np.stack([truth, found], axis=1), axis=0, return_counts=True)
    confusion: dict[str, dict[str, int]] = {}
    for (is_class, taken_for), count in zip(pairs.tolist(), counts.tolist(), strict=True):
        confusion.setdefault(names[is_class], {})[names[taken_for]] = count
    return confusion
