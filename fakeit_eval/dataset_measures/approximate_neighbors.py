"""Finds the neighbors of more than 50,000 images by faiss's inverted lists, which miss a few; how many is measured."""

import math

import numpy as np
from numpy.typing import NDArray

from fakeit_eval.dataset_measures.neighbors import COVERAGE_K, MANIFOLD_K, Features, Nearest, Neighbors

CANDIDATES = 64
"""Nearest images whose balls are tried for each image."""
PROBED = 1 / 16
"""Share of the lists that a search visits."""
QUERIES = 1_000
"""Images whose exact neighbors are compared with the found ones."""


def find_neighbors_approximately(synthetic: Features, real: Features) -> tuple[Neighbors, float]:
    """Compares features (n, d) and (m, d); an image counts as outside of the balls of all but its nearest candidates.

    Returns:
        The neighbors, and the recall: the share of the exact nearest real images of some synthetic ones that was found.
    """
    of_real, of_synthetic = _Index(real), _Index(synthetic)
    real_distances = _others(of_real, real)
    synthetic_radii = _others(of_synthetic, synthetic)[:, MANIFOLD_K - 1]
    distances, nearest = of_real.search(synthetic, CANDIDATES)
    back, nearest_synthetic = of_synthetic.search(real, CANDIDATES)
    in_manifold = distances <= real_distances[nearest, MANIFOLD_K - 1]
    in_coverage = distances <= real_distances[nearest, COVERAGE_K - 1]
    found = Neighbors(
        nearest_real=nearest[:, 0],
        nearest_real_distance=distances[:, 0],
        nearest_synthetic_distance=back[:, 0],
        real_spacing=real_distances[:, 0],
        is_in_real=np.any(in_manifold, axis=1),
        is_in_synthetic=np.any(back <= synthetic_radii[nearest_synthetic], axis=1),
        num_real_balls=in_coverage.sum(1),
        is_covered=back[:, 0] <= real_distances[:, COVERAGE_K - 1],
    )
    return found, _recall(synthetic, real, nearest)


def find_nearest_approximately(synthetic: Features, real: Features) -> Nearest:
    """Finds a real image near each synthetic one, features (n, d) and (m, d); nearly always the nearest."""
    index = _Index(real)
    distances, nearest = index.search(synthetic, 1)
    return Nearest(real=nearest[:, 0], distance=distances[:, 0], spacing=_others(index, real)[:, 0])


class _Index:
    def __init__(self, features: Features) -> None:
        import faiss

        num_lists = round(4 * math.sqrt(len(features)))
        self.index = faiss.IndexIVFFlat(faiss.IndexFlatL2(features.shape[1]), features.shape[1], num_lists)
        self.index.nprobe = max(1, round(num_lists * PROBED))
        self.index.cp.seed = 0
        self.index.train(features)
        self.index.add(features)

    def search(self, queries: Features, count: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Distances and indices (q, count) of the nearest rows, in ascending order."""
        squares, rows = self.index.search(np.ascontiguousarray(queries), count)
        return np.sqrt(np.maximum(squares.astype(np.float64), 0)), rows


def _others(index: _Index, features: Features) -> NDArray[np.float64]:
    """Distances (n, COVERAGE_K) of each row to its nearest other rows."""
    distances, rows = index.search(features, COVERAGE_K + 1)
    is_self = rows == np.arange(len(features))[:, None]
    distances[is_self] = np.inf
    return np.sort(distances, 1)[:, :COVERAGE_K]


def _recall(synthetic: Features, real: Features, nearest: NDArray[np.int64]) -> float:
    import faiss

    chosen = np.random.default_rng(0).permutation(len(synthetic))[:QUERIES]
    _, exact = faiss.knn(np.ascontiguousarray(synthetic[chosen]), np.ascontiguousarray(real), COVERAGE_K)
    return float(np.mean([len(np.intersect1d(a, b)) for a, b in zip(exact, nearest[chosen], strict=True)]) / COVERAGE_K)
