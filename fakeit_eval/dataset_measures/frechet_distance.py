"""Fréchet distance: the squared 2-Wasserstein distance of two Gaussians with the means and covariances of the features.

|m₁ - m₂|² + tr(S₁ + S₂ - 2 (S₁ S₂)^½), as in Heusel et al., 2017, there on features of Inception. It is biased upwards,
the more the fewer images there are, so only values of equally many images can be compared.
"""

import numpy as np
from numpy.typing import NDArray

from fakeit_eval.dataset_measures.estimate import Estimate

Features = NDArray[np.float64]
RANK = 1e-12
"""Eigenvalues below this share of the largest count as zero."""


def frechet_distance(synthetic: Features, real: Features) -> Estimate:
    """The Fréchet distance of features (n, d) and (m, d), n and m at least 2, in squared units of the features.

    The gradient of the distance with respect to the covariances is 1 minus the linear map that transports one Gaussian to
    the other; it gives the influence of each image.
    """
    mean, other_mean = synthetic.mean(0), real.mean(0)
    centered, other_centered = synthetic - mean, real - other_mean
    covariance = centered.T @ centered / (len(synthetic) - 1)
    other_covariance = other_centered.T @ other_centered / (len(real) - 1)
    root, inverse = _roots(covariance)
    values, vectors = np.linalg.eigh(root @ other_covariance @ root)
    middle = np.sqrt(np.maximum(values, 0))
    step = mean - other_mean
    value = step @ step + np.trace(covariance) + np.trace(other_covariance) - 2 * middle.sum()
    to_real = inverse @ (vectors * middle) @ vectors.T @ inverse
    kept = middle > np.sqrt(RANK) * max(middle.max(), np.finfo(float).tiny)
    back = np.where(kept, 1 / np.where(kept, middle, 1), 0)
    to_synthetic = root @ (vectors * back) @ vectors.T @ root
    return Estimate(
        value=max(0.0, float(value)),
        synthetic=2 * centered @ step + _quadratic(centered, to_real),
        real=-2 * other_centered @ step + _quadratic(other_centered, to_synthetic),
        low=0.0,
    )


def _roots(covariance: Features) -> tuple[Features, Features]:
    """The square root (d, d) of a covariance, and that root's pseudo-inverse."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > RANK * max(values.max(), np.finfo(float).tiny)
    root = np.sqrt(np.where(kept, values, 0))
    return (vectors * root) @ vectors.T, (vectors * np.where(kept, 1 / np.where(kept, root, 1), 0)) @ vectors.T


def _quadratic(centered: Features, transport: Features) -> Features:
    """|x|² - xᵀ T x of each row x."""
    return np.einsum("nd,nd->n", centered, centered) - np.einsum("nd,nd->n", centered @ transport, centered)
