from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from fakeit_eval.probes.probe import run_probe
from tests.fakeit_eval.probes.blobs import blobs


def test_probe__scores_are_scikit_learns(tmp_path: Path) -> None:
    """On a test part whose classes have 100, 50 and 10 images, and are hard to tell apart."""
    data = blobs(noise=2.0)
    rows = np.concatenate([np.flatnonzero(data.test[1] == label)[:num] for label, num in ((0, 100), (1, 50), (2, 10))])
    data = replace(data, test=(data.test[0][rows], data.test[1][rows]))
    found = run_probe("logistic_regression", data, num_trials=5, seed=0, study=tmp_path)
    model = LogisticRegression(C=found.parameters["C"], max_iter=2000).fit(*data.both)
    predicted = model.predict(data.test[0])
    assert found.top1 == pytest.approx(100 * accuracy_score(data.test[1], predicted), abs=0.7)  # one image of 160
    assert found.mean_per_class == pytest.approx(100 * balanced_accuracy_score(data.test[1], predicted), abs=3.4)
    assert abs(found.mean_per_class - found.top1) > 4
