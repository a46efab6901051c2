"""Finds nearest real images among more than 50,000 by faiss's inverted lists, which miss a few; how many is measured."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fakeit_eval.dataset_measures.distances import Features
from fakeit_eval.dataset_measures.neighbors import Nearest

PROBED = 1 / 16
"""Share of the lists that a search visits."""
QUERIES = 1_000
"""Images whose exact nearest neighbor is compared with the found one."""


def find_nearest_approximately(synthetic: Features, real: Features) -> tuple[Nearest, float]:
    """Finds a real image near each synthetic one, features (n, d) and (m, d); nearly always the nearest.

    Returns:
        The nearest images, and the recall: the share of some synthetic images whose exact nearest one was found.
    """
    import faiss

    num_lists = round(4 * math.sqrt(len(real)))
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(real.shape[1]), real.shape[1], num_lists)
    index.nprobe = max(1, round(num_lists * PROBED))
    index.cp.seed = 0
    index.train(real)
    index.add(real)
    distances, nearest = _search(index, synthetic, 1)
    among_real, rows = _search(index, real, 2)
    among_real[rows == np.arange(len(real))[:, None]] = np.inf
    found = Nearest(real=nearest[:, 0], distance=distances[:, 0], spacing=among_real.min(1))
    chosen = np.random.default_rng(0).permutation(len(synthetic))[:QUERIES]
    _, exact = faiss.knn(np.ascontiguousarray(synthetic[chosen]), np.ascontiguousarray(real), 1)
    return found, float((exact == nearest[chosen]).mean())


def _search(index: Any, queries: Features, count: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distances and indices (q, count) of the nearest rows, in ascending order."""
    squares, rows = index.search(np.ascontiguousarray(queries), count)
    return np.sqrt(np.maximum(squares.astype(np.float64), 0)), rows
