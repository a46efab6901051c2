from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from fakeit_eval.probing.run_probe import run_probe
from tests.fakeit_eval.probes.blobs import blobs


def test_run_probe__scores_are_scikit_learns(tmp_path: Path) -> None:
    """The test split has 100 images of one class, 50 of another, and 10 of the first that are labeled as the third."""
    data = blobs()
    features, labels = data.test
    zeros, ones = np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)
    rows = np.concatenate([zeros, ones[:50], zeros[:10]])
    data = replace(data, test=(features[rows], np.repeat([0, 1, 2], [100, 50, 10])))
    found = run_probe("logistic_regression", data, num_trials=5, seed=0, study=tmp_path)
    model = LogisticRegression(C=found.parameters["C"], max_iter=2000).fit(*data.both)
    predicted = model.predict(data.test[0])
    assert found.top1 == pytest.approx(100 * accuracy_score(data.test[1], predicted), abs=0.7)  # one image of 160
    assert found.mean_per_class == pytest.approx(100 * balanced_accuracy_score(data.test[1], predicted), abs=3.4)
    assert found.top1 - found.mean_per_class > 10
