import numpy as np
import pytest
from scipy.special import softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, log_loss

from builders.errors import UserError
from fakeit_eval.classify import NUM_BINS, classify, score_images, shared_rows
from fakeit_eval.reporting.intervals import interval

CLASSES = list("abcdefg")


def test_classify__top1_top5_and_per_class() -> None:
    logits = np.array([[7, 6, 5, 4, 3, 2, 1]] * 4, dtype=np.float32)
    score = classify(score_images(logits, np.array([0, 0, 4, 5]), CLASSES, CLASSES))
    assert (score.top1, score.top5) == (50.0, 75.0)
    assert score.per_class == {"a": 100.0, "e": 0.0, "f": 0.0}
    assert score.confusion == {"a": {"a": 2}, "e": {"a": 1}, "f": {"a": 1}}


def test_classify__labels_are_matched_by_id_and_only_the_sets_classes_compete() -> None:
    # The largest logit is that of class a, but the test set has only c and b.
    logits = np.array([[9, 1, 3, 0, 0, 0, 0]], dtype=np.float32)
    assert classify(score_images(logits, np.array([0]), ["c", "b"], CLASSES)).top1 == 100.0
    assert classify(score_images(logits, np.array([1]), ["c", "b"], CLASSES)).top1 == 0.0


def test_classify__images_of_unknown_classes_are_left_out() -> None:
    labels = np.array([0, 1, 1, 2, 0])
    assert shared_rows(labels, ["a", "x", "b"], CLASSES).tolist() == [0, 3, 4]
    # The largest logit is that of class c, which the test set does not have.
    logits = np.array([[1, 0, 9, 0, 0, 0, 0], [0, 1, 9, 0, 0, 0, 0]], dtype=np.float32)
    score = classify(score_images(logits, np.array([0, 2]), ["a", "x", "b"], CLASSES))
    assert score.top1 == 100.0 and score.per_class == {"a": 100.0, "b": 100.0}


def test_classify__no_class_in_common_is_refused() -> None:
    with pytest.raises(UserError, match="knows none of the 2 classes of the test set, such as 'x'"):
        shared_rows(np.array([0, 1]), ["x", "y"], CLASSES)


def test_classify__confusion_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(200, 7)).astype(np.float32), rng.integers(0, 7, 200)
    found = classify(score_images(logits, labels, CLASSES, CLASSES)).confusion
    expected = confusion_matrix(labels, logits.argmax(1))
    assert [[found[a].get(b, 0) for b in CLASSES] for a in CLASSES] == expected.tolist()


def test_classify__likelihood_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    logits, labels = (3 * rng.normal(size=(300, 7))).astype(np.float32), rng.integers(0, 7, 300)
    found = classify(score_images(logits, labels, CLASSES, CLASSES))
    assert found.negative_log_likelihood == pytest.approx(
        log_loss(labels, softmax(logits.astype(np.float64), 1)), rel=1e-6
    )


def test_classify__calibration_error_is_that_of_scikit_learns_curve() -> None:
    rng = np.random.default_rng(0)
    logits, labels = (2 * rng.normal(size=(2_000, 7))).astype(np.float32), rng.integers(0, 7, 2_000)
    scores = score_images(logits, labels, CLASSES, CLASSES)
    accuracy, confidence = calibration_curve(scores.is_right, scores.confidence, n_bins=NUM_BINS)
    counts = np.histogram(scores.confidence, NUM_BINS, (0, 1))[0]
    expected = np.average(np.abs(accuracy - confidence), weights=counts[counts > 0])
    assert classify(scores).calibration_error == pytest.approx(100 * expected, rel=1e-6)


def test_classify__a_certain_and_right_classifier_has_no_error() -> None:
    logits = np.array([[1_000, 0, 0, 0, 0, 0, 0]] * 4, dtype=np.float32)  # large logits do not overflow
    found = classify(score_images(logits, np.zeros(4, np.int64), CLASSES, CLASSES))
    assert found.calibration_error == found.negative_log_likelihood == 0


def test_intervals__contain_the_value_and_shrink_with_images() -> None:
    low, high = interval(80, 100)
    assert low == pytest.approx(71.11, abs=0.01) and high == pytest.approx(86.66, abs=0.01)  # Wilson 1927
    few, many = interval(8, 10), interval(8000, 10000)
    assert few[0] < low < many[0] < 80 < many[1] < high < few[1]
    assert interval(10, 10)[1] == 100.0 and interval(0, 10)[0] == 0.0
