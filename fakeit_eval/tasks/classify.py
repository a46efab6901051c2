"""Testing a model with its own classifier: top-1, top-5 and per class.

Labels are matched by class id, never by position; where a test set has only some of the model's classes, only those compete.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from builders.format.errors import UserError


@dataclass(frozen=True)
class Classification:
    top1: float
    """Percent."""
    top5: float
    """Percent; of fewer than five classes, as many as there are count."""
    per_class: dict[str, float]
    """Top-1 in percent of each class that has images."""


def classify(
    logits: NDArray[np.float32], labels: NDArray[np.int64], test_classes: list[str], model_classes: list[str]
) -> Classification:
    """Scores logits (n, model classes) against labels (n,) that number `test_classes`.

    Raises:
        UserError: the test set has a class that the model does not know.
    """
    unknown = [name for name in test_classes if name not in set(model_classes)]
    if unknown:
        raise UserError(
            f"the model does not know class '{unknown[0]}' ({len(unknown)} of {len(test_classes)} are unknown); "
            "test it on a set of its own classes, or use 'fakeit-eval probe'"
        )
    columns = [model_classes.index(name) for name in test_classes]
    ranked = np.argsort(-logits[:, columns], axis=1, kind="stable")[:, :5]
    hits = ranked == labels[:, None]
    per_class = {
        name: round(100 * float(hits[labels == label, 0].mean()), 4)
        for label, name in enumerate(test_classes)
        if (labels == label).any()
    }
    return Classification(100 * float(hits[:, 0].mean()), 100 * float(hits.any(axis=1).mean()), per_class)
