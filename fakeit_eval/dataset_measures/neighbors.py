"""Finds which images lie near which: the input of precision, recall, density, coverage and copies.

The manifold of a set is the union of balls around its images; a ball reaches to the k-th nearest other image of the set.
Balls are closed: an image at exactly the radius is inside, as in torch-fidelity.

Where rounding could decide whether an image is inside, its distance is computed again in double precision. Only the nearest
real image may be another one, whose distance is the same up to `distances.TOLERANCE`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fakeit_eval.dataset_measures.distances import (
    MAX_DOUBLE,
    Features,
    Minimum,
    Rows,
    blocks,
    pairs_within,
    row_distances,
)

MANIFOLD_K = 3
"""k of precision and recall (Kynkäänniemi et al., 2019)."""
COVERAGE_K = 5
"""k of density and coverage (Naeem et al., 2020)."""


@dataclass(frozen=True, kw_only=True)
class Neighbors:
    """What n synthetic and m real images have near them. Distances are l2, in units of the features."""

    nearest_real: NDArray[np.int64]
    """Index (n,) of the real image that is nearest to each synthetic one."""
    nearest_real_distance: NDArray[np.float64]
    """Distance (n,) to it."""
    nearest_synthetic_distance: NDArray[np.float64]
    """Distance (m,) of each real image to the nearest synthetic one."""
    real_spacing: NDArray[np.float64]
    """Distance (m,) of each real image to the nearest other real one."""
    is_in_real: NDArray[np.bool_]
    """Whether each synthetic image (n,) is in the real manifold with `MANIFOLD_K`: precision."""
    is_in_synthetic: NDArray[np.bool_]
    """Whether each real image (m,) is in the synthetic manifold with `MANIFOLD_K`: recall."""
    num_real_balls: NDArray[np.int64]
    """Number (n,) of the real images in whose ball with `COVERAGE_K` each synthetic image lies: density."""
    is_covered: NDArray[np.bool_]
    """Whether the ball of each real image (m,) with `COVERAGE_K` has a synthetic image: coverage."""


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """The nearest real image of each of n synthetic ones, and how far m real images are from each other."""

    real: NDArray[np.int64]
    """Index (n,) of the nearest real image."""
    distance: NDArray[np.float64]
    """Distance (n,) to it."""
    spacing: NDArray[np.float64]
    """Distance (m,) of each real image to the nearest other real one."""


def find_nearest(synthetic: Features, real: Features) -> Nearest:
    """Finds the nearest real image of each synthetic one, features (n, d) and (m, d) with m at least 2, exactly."""
    pair = _Pair.of(synthetic, real)
    nearest = Minimum(len(synthetic))
    for rows in blocks(len(synthetic)):
        factor = pair.synthetic.left(rows)
        for columns in blocks(len(real)):
            nearest.update(pair.real.squares(factor, columns), rows, columns)
    indices, distance = pair.synthetic.refined(nearest, pair.real)
    return Nearest(real=indices, distance=distance, spacing=pair.real.nearest_others(1)[:, 0])


def find_neighbors(synthetic: Features, real: Features) -> Neighbors:
    """Compares features (n, d) and (m, d) exactly; n and m must be more than `COVERAGE_K`.

    Memory beyond the features is in proportion to n + m; the time is that of two matrix products of n by m by d.
    """
    pair = _Pair.of(synthetic, real)
    real_radii = pair.real.nearest_others(COVERAGE_K)
    synthetic_radii = pair.synthetic.nearest_others(MANIFOLD_K)[:, -1]
    n, m = len(synthetic), len(real)
    nearest_real, nearest_synthetic = Minimum(n), Minimum(m)
    is_in_real, is_in_synthetic, is_covered = np.zeros(n, bool), np.zeros(m, bool), np.zeros(m, bool)
    num_real_balls = np.zeros(n, np.int64)
    reach = pair.real.reach(real_radii[:, -1]), pair.synthetic.reach(synthetic_radii)
    for rows in blocks(n):
        factor = pair.synthetic.left(rows)
        for columns in blocks(m):
            squares = pair.real.squares(factor, columns)
            nearest_real.update(squares, rows, columns)
            nearest_synthetic.update(squares.T, columns, rows)
            left, right = pairs_within(squares, reach[1][rows], reach[0][columns])
            left, right = left + rows.start, right + columns.start
            distances = pair.distances(left, right)
            is_in_coverage = distances <= real_radii[right, -1]
            is_in_real[left[distances <= real_radii[right, MANIFOLD_K - 1]]] = True
            is_in_synthetic[right[distances <= synthetic_radii[left]]] = True
            is_covered[right[is_in_coverage]] = True
            num_real_balls += np.bincount(left[is_in_coverage], minlength=n)
    indices, distance = pair.synthetic.refined(nearest_real, pair.real)
    return Neighbors(
        nearest_real=indices,
        nearest_real_distance=distance,
        nearest_synthetic_distance=pair.real.refined(nearest_synthetic, pair.synthetic)[1],
        real_spacing=real_radii[:, 0],
        is_in_real=is_in_real,
        is_in_synthetic=is_in_synthetic,
        num_real_balls=num_real_balls,
        is_covered=is_covered,
    )


@dataclass(frozen=True)
class _Pair:
    synthetic: Rows
    real: Rows

    @classmethod
    def of(cls, synthetic: Features, real: Features) -> "_Pair":
        center = real.mean(0, dtype=np.float64)
        size = real.shape[1]
        is_double = float(len(synthetic)) * len(real) * size <= MAX_DOUBLE
        return cls(Rows(synthetic, center, is_double=is_double), Rows(real, center, is_double=is_double))

    def distances(self, synthetic: NDArray[np.int64], real: NDArray[np.int64]) -> NDArray[np.float64]:
        """Exact distances (p,) of p pairs of a synthetic and a real image."""
        return row_distances(self.synthetic.features, synthetic, self.real.features, real)
