from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from builders.classifiers.nearest_neighbors import TEMPERATURE
from fakeit_eval.probes import k_nearest_neighbors
from fakeit_eval.probing.run_probe import run_probe
from tests.fakeit_eval.probes.blobs import blobs


@pytest.mark.parametrize("k", [1, 10, 200])
def test_k_nearest_neighbors__predictions_are_scikit_learns(k: int) -> None:
    data = blobs(noise=2.0)
    found = k_nearest_neighbors.open_final(data, seed=0)({"k": k})
    features, labels = data.both
    reference = KNeighborsClassifier(
        k, metric="cosine", weights=lambda distances: np.exp((1 - distances) / TEMPERATURE)
    ).fit(features, labels)
    assert (found == reference.predict(data.test[0])).mean() > 0.99


def test_k_nearest_neighbors__every_k_is_tried_once(tmp_path: Path) -> None:
    score = run_probe("k_nearest_neighbors", blobs(), num_trials=30, seed=0, study=tmp_path)
    assert [trial["k"] for trial in score.trials] == list(k_nearest_neighbors.CHOICES)


def test_k_nearest_neighbors__more_neighbors_than_samples() -> None:
    data = blobs(num=30)
    assert k_nearest_neighbors.open_tuning(data, seed=0)({"k": 200}) > 50
