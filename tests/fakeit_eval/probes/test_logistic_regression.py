import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from fakeit_eval.probes import logistic_regression
from fakeit_eval.probes.base import top1
from tests.fakeit_eval.probes.blobs import blobs


def plain(train: tuple[np.ndarray, np.ndarray], queries: np.ndarray, c: float) -> np.ndarray:  # type: ignore[type-arg]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(LogisticRegression(C=c, max_iter=2000).fit(*train).predict(queries))


@pytest.mark.parametrize("c", [1e-5, 1e-2, 1.0, 1e4])
def test_logistic_regression__is_plain_scikit_learn_after_any_other_fit(c: float) -> None:
    data = blobs(noise=0.7)
    tune = logistic_regression.open_tuning(data, seed=0)
    tune({"C": 0.3})
    assert tune({"C": c}) == top1(plain(data.train, data.val[0], c), data.val[1])
    assert (logistic_regression.open_final(data, seed=0)({"C": c}) == plain(data.both, data.test[0], c)).all()


@pytest.mark.parametrize("c", [1e-2, 1.0])
def test_logistic_regression__tensors_give_the_same_scores(c: float, monkeypatch: pytest.MonkeyPatch) -> None:
    data = blobs(noise=0.7)
    on_arrays = logistic_regression.open_tuning(data, seed=0)({"C": c})
    monkeypatch.setattr(logistic_regression, "TENSOR_SIZE", 0)
    fitted, _ = logistic_regression._on_device(data.train, data.val)
    assert type(fitted[0]).__name__ == "Tensor"
    assert logistic_regression.open_tuning(data, seed=0)({"C": c}) == pytest.approx(
        on_arrays, abs=0.4
    )  # one sample of 300


def test_logistic_regression__two_classes() -> None:
    data = blobs(num_classes=2)
    predicted = logistic_regression.open_final(data, seed=0)({"C": 1.0})
    assert set(np.unique(predicted)) == {0, 1} and top1(predicted, data.test[1]) > 80
