import numpy as np
import pytest

from builders.format.errors import UserError
from fakeit_eval.tasks.classify import classify

CLASSES = list("abcdefg")


def test_classify__top1_top5_and_per_class() -> None:
    logits = np.array([[7, 6, 5, 4, 3, 2, 1]] * 4, dtype=np.float32)
    score = classify(logits, np.array([0, 0, 4, 5]), CLASSES, CLASSES)
    assert (score.top1, score.top5) == (50.0, 75.0)
    assert score.per_class == {"a": 100.0, "e": 0.0, "f": 0.0}


def test_classify__labels_are_matched_by_id_and_only_the_sets_classes_compete() -> None:
    logits = np.array([[9, 1, 3, 0, 0, 0, 0]], dtype=np.float32)  # the model says a; the set has only c and b
    assert classify(logits, np.array([0]), ["c", "b"], CLASSES).top1 == 100.0
    assert classify(logits, np.array([1]), ["c", "b"], CLASSES).top1 == 0.0


def test_classify__unknown_classes_are_told() -> None:
    with pytest.raises(UserError, match=r"class 'x' \(1 of 2"):
        classify(np.zeros((1, 7), np.float32), np.array([0]), ["a", "x"], CLASSES)
