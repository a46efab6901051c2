import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from fakeit_eval.probes import logistic_regression
from fakeit_eval.probes.base import top1
from tests.fakeit_eval.probes.blobs import blobs


@pytest.mark.parametrize("c", [1e-5, 1e-2, 1.0])
def test_logistic_regression__is_scikit_learns_wherever_it_begins(c: float) -> None:
    data = blobs(noise=0.7)  # with more, some of val are as near to one class as to another at so small a C
    tune = logistic_regression.open_tuning(data, seed=0)
    tune({"C": 0.3}, lambda step, value: None)  # the next fit begins at these weights
    found = tune({"C": c}, lambda step, value: None)
    plain = LogisticRegression(C=c, max_iter=2000).fit(*data.train)
    assert found == pytest.approx(top1(plain.predict(data.val[0]), data.val[1]), abs=1.0)


def test_logistic_regression__the_last_fit_is_of_train_and_val() -> None:
    data = blobs()
    found = logistic_regression.open_final(data, seed=0)({"C": 1.0})
    plain = LogisticRegression(C=1.0, max_iter=2000).fit(*data.both).predict(data.test[0])
    assert (found == plain).mean() > 0.99


def test_logistic_regression__goes_on_to_the_last_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic_regression, "MAX_ITERATIONS", 5)
    monkeypatch.setattr(logistic_regression, "FIRST_STAGE", 2)
    steps: list[int] = []
    logistic_regression.open_tuning(blobs(), seed=0)({"C": 100.0}, lambda step, value: steps.append(step))
    assert steps == [0, 1]  # 2 + 3 iterations


def test_logistic_regression__two_classes() -> None:
    data = blobs(num_classes=2)
    predicted = logistic_regression.open_final(data, seed=0)({"C": 1.0})
    assert set(np.unique(predicted)) == {0, 1} and top1(predicted, data.test[1]) > 80
