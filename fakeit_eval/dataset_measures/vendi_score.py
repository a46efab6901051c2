"""Vendi score: the effective number of different images, after Friedman and Dieng, 2023, with the cosine kernel.

It is the exponential of the entropy of the eigenvalues of K / n, where K are the cosines of all pairs of images: 1 if all
images are alike, n if all are orthogonal.
"""

import numpy as np
from numpy.typing import NDArray

from fakeit_eval.dataset_measures.estimate import Estimate

ZERO = 1e-14
"""Eigenvalues up to this contribute nothing to the entropy."""


def vendi_score(unit: NDArray[np.float64]) -> Estimate:
    """The Vendi score of features (n, d) of length 1. K / n and the (d, d) matrix XᵀX / n have the same eigenvalues."""
    num_images, size = unit.shape
    if num_images <= size:
        values, left = np.linalg.eigh(unit @ unit.T / num_images)
        kept = values > ZERO
        # Row x has the coordinates √(n λ) times its entries of the eigenvectors of K / n.
        squares = num_images * values[kept] * left[:, kept] ** 2
    else:
        values, vectors = np.linalg.eigh(unit.T @ unit / num_images)
        kept = values > ZERO
        squares = (unit @ vectors[:, kept]) ** 2
    logs = np.log(values[kept])
    score = float(np.exp(-(values[kept] * logs).sum()))
    return Estimate(value=score, synthetic=-score * squares @ logs, low=1.0, high=float(num_images))
