"""Precision, recall, density and coverage, from the neighbors of synthetic and real images.

Precision and recall follow Kynkäänniemi et al., 2019, density and coverage Naeem et al., 2020. Noise that pushes synthetic
images away from each other enlarges the synthetic manifold, so recall can rise while images get worse; coverage, whose
balls are those of the real images, falls.

The intervals are those of the images that are counted, with the balls as they are.
"""

import numpy as np

from fakeit_eval.dataset_measures.estimate import Estimate, share
from fakeit_eval.dataset_measures.neighbors import COVERAGE_K, Neighbors


def manifold_measures(found: Neighbors) -> dict[str, Estimate]:
    """Returns precision, recall and coverage in [0, 1], and density, which is at least 0 and about 1 for equal sets."""
    density = found.num_real_balls / COVERAGE_K
    return {
        "precision": share(found.is_in_real),
        "recall": share(found.is_in_synthetic, of_real=True),
        "density": Estimate(value=float(density.mean()), synthetic=density.astype(np.float64), low=0.0),
        "coverage": share(found.is_covered, of_real=True),
    }
