"""Checks the measures on features with known answers, and against slow references on real features."""

import importlib
import pkgutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits

import fakeit_eval.measures as folder
from fakeit_eval.features.rows import UnitRows
from fakeit_eval.measures import coding_length, feature_redundancy, intra_class_distance, sparsity

NO_LABELS = np.zeros(4, dtype=np.int64)


def real() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Pixels of real digits, scaled to length one, with their labels; some pixels are always zero."""
    pixels, labels = load_digits(return_X_y=True)
    return UnitRows(pixels.astype(np.float32))[:], labels.astype(np.int64)


def slow_sparsity(x: NDArray[np.float64], y: NDArray[np.int64]) -> float:
    return sum(abs(value) < 1e-5 for row in x for value in row) / x.size


def slow_distance(x: NDArray[np.float64], y: NDArray[np.int64]) -> float:
    pairs = [
        float(np.sqrt(((x[i] - x[j]) ** 2).sum()))
        for label in np.unique(y)
        for i in np.flatnonzero(y == label)
        for j in np.flatnonzero(y == label)
        if i < j
    ]
    return sum(pairs) / len(pairs)


def slow_redundancy(x: NDArray[np.float64], y: NDArray[np.int64]) -> float:
    d = x.shape[1]
    total = 0.0
    for i in range(d):
        for j in range(d):
            if x[:, i].std() > 0 and x[:, j].std() > 0:
                total += abs(float(np.corrcoef(x[:, i], x[:, j])[0, 1]))
    return total / d**2


def slow_coding_length(x: NDArray[np.float64], y: NDArray[np.int64]) -> float:
    n, d = x.shape
    values = np.linalg.eigvalsh(np.eye(d) + d / (n * 0.5) * x.T @ x)
    return float(np.log(values).sum()) / 2


def slow_distance_per_class(features: Any, labels: Any) -> float:
    """Computes the distances by SciPy, class by class."""
    from scipy.spatial.distance import pdist

    classes = [features[labels == label] for label in np.unique(labels)]
    return float(np.mean([pdist(some).mean() for some in classes if len(some) > 1]))


SLOW: dict[str, Any] = {
    "sparsity": slow_sparsity,
    "intra_class_distance": slow_distance,
    "intra_class_distance_per_class": slow_distance_per_class,
    "feature_redundancy": slow_redundancy,
    "coding_length": slow_coding_length,
}


def measure(name: str) -> Any:
    return importlib.import_module(f"{folder.__name__}.{name}").measure


@pytest.mark.parametrize("name", SLOW)
def test_measures__equal_their_slow_references(name: str) -> None:
    features, labels = real()
    features, labels = features[:400], labels[:400]
    assert measure(name)(features, labels) == pytest.approx(SLOW[name](features.astype(np.float64), labels), rel=1e-4)


def test_measures__each_has_a_reference() -> None:
    modules = {module.name for module in pkgutil.iter_modules(folder.__path__)}
    assert {
        name for name in modules if hasattr(importlib.import_module(f"{folder.__name__}.{name}"), "measure")
    } == set(SLOW)


def test_measures__known_answers() -> None:
    corners = np.eye(4, dtype=np.float32)
    assert sparsity.measure(corners, NO_LABELS) == 0.75
    assert intra_class_distance.measure(corners, NO_LABELS) == pytest.approx(2**0.5)
    assert intra_class_distance.measure(corners, np.array([0, 0, 1, 2])) == pytest.approx(2**0.5)
    assert coding_length.measure(corners, NO_LABELS) == pytest.approx(4 * np.log(3) / 2)  # d / (n ε²) = 2
    # ρ is -1/3 off the diagonal.
    assert feature_redundancy.measure(corners, NO_LABELS) == pytest.approx((4 + 12 / 3) / 16)
    copies = np.random.default_rng(0).normal(size=(50, 1)).astype(np.float32) * [1, -2, 3]
    assert feature_redundancy.measure(copies.astype(np.float32), NO_LABELS) == pytest.approx(1)
    flat = np.concatenate([copies, np.ones((50, 1))], axis=1).astype(np.float32)
    assert feature_redundancy.measure(flat, NO_LABELS) == pytest.approx(9 / 16)


def test_measures__nearly_equal_samples_have_a_tiny_distance() -> None:
    row = np.random.default_rng(0).normal(size=64).astype(np.float32)
    features = np.stack([row, row * (1 + 1e-6)])
    found = intra_class_distance.measure(features, np.zeros(2, dtype=np.int64))
    assert found == pytest.approx(float(np.linalg.norm(features[0].astype(float) - features[1])), rel=1e-3)


def test_measures__a_distance_needs_two_samples_of_a_class() -> None:
    with pytest.raises(ValueError, match="no class has two samples"):
        intra_class_distance.measure(np.eye(3, dtype=np.float32), np.arange(3))


def test_measures__rows_are_scaled_to_length_one() -> None:
    found = UnitRows(np.array([[3, 4], [0, 0]], dtype=np.float32))
    assert found[:].tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0]]


@pytest.mark.parametrize("name", SLOW)
def test_measures__memory_does_not_grow_with_the_samples(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    peaks = []
    for count in (20_000, 60_000):
        path = tmp_path / f"{count}.npy"
        np.save(path, rng.normal(size=(count, 128)).astype(np.float32))
        features = np.load(path, mmap_mode="r")
        tracemalloc.start()
        measure(name)(features, np.arange(count) % 500)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Only labels and their order grow with the number of samples.
    assert peaks[1] < 1.2 * peaks[0] + 4 * 2**20
