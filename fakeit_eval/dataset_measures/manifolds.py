"""Precision, recall, density and coverage, from the neighbors of synthetic and real images.

Precision and recall follow Kynkäänniemi et al., 2019, density and coverage Naeem et al., 2020. Noise that pushes synthetic
images away from each other enlarges the synthetic manifold, so recall can rise while images get worse; coverage, whose
balls are those of the real images, falls.

Their intervals come from disjoint blocks of both sets: a ball depends on other images, so single images have no terms.
"""

from collections.abc import Sequence

import numpy as np

from fakeit_eval.dataset_measures.distances import Features
from fakeit_eval.dataset_measures.estimate import Estimate
from fakeit_eval.dataset_measures.neighbors import COVERAGE_K, Neighbors, find_neighbors

BLOCKS = ((300, 10), (60, 5))
"""Numbers of images of each set from which there are so many blocks; with fewer images there are none."""


def manifold_measures(found: Neighbors, blocks: Sequence[Neighbors] = ()) -> dict[str, Estimate]:
    """Returns precision, recall and coverage in [0, 1], and density, which is at least 0 and about 1 for equal sets.

    Args:
        blocks: Neighbors within disjoint blocks of the same images; without any, the measures have no interval.
    """
    of_blocks = [_values(block) for block in blocks]
    counted = {"precision": len(found.is_in_real), "recall": len(found.is_covered), "coverage": len(found.is_covered)}
    return {
        name: Estimate(
            value=value,
            blocks=np.array([of[name] for of in of_blocks]),
            low=0.0,
            high=1.0 if name in counted else np.inf,
            counted=counted.get(name, 0),
        )
        for name, value in _values(found).items()
    }


def find_neighbors_of_blocks(synthetic: Features, real: Features) -> list[Neighbors]:
    """Finds neighbors within each of some disjoint blocks of features (n, d) and (n, d); [] with too few images.

    Rows that are ordered by class fall into blocks with the same shares of classes.
    """
    count = next((count for images, count in BLOCKS if len(synthetic) >= images), 0)
    return [find_neighbors(synthetic[start::count], real[start::count]) for start in range(count)]


def _values(found: Neighbors) -> dict[str, float]:
    return {
        "precision": float(found.is_in_real.mean()),
        "recall": float(found.is_in_synthetic.mean()),
        "density": float(found.num_real_balls.mean() / COVERAGE_K),
        "coverage": float(found.is_covered.mean()),
    }
