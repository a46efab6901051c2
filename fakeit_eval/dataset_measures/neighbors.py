"""Finds which images lie near which: the input of precision, recall, density, coverage and copies.

The manifold of a set is the union of balls around its images; a ball reaches to the k-th nearest other image of the set.
Balls are closed: an image at exactly the radius is inside, as in torch-fidelity.

Distances are computed in blocks as matrix products, in single precision if there are many. Wherever rounding could decide,
which is in very few pairs, the distance is computed again in double precision from the difference of the two images.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Features = NDArray[np.float32]
MANIFOLD_K = 3
"""k of precision and recall (Kynkäänniemi et al., 2019)."""
COVERAGE_K = 5
"""k of density and coverage (Naeem et al., 2020)."""
MAX_DOUBLE = 1e9
"""Up to this many products of numbers all distances are computed in double precision."""
BLOCK = 2048
"""Rows and columns of a block of distances."""
SPARE = 4
"""Nearest candidates beyond k whose distances are computed again in double precision."""
PAIRS = 1 << 16
"""Pairs whose differences are in memory at once."""


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
    nearest = _Minimum(len(synthetic))
    for rows in _blocks(len(synthetic)):
        for columns in _blocks(len(real)):
            nearest.update(pair.synthetic.squares(rows, pair.real, columns), rows, columns)
    distance = pair.distances(np.arange(len(synthetic)), nearest.indices)
    return Nearest(real=nearest.indices, distance=distance, spacing=pair.real.nearest_others(1)[:, 0])


def find_neighbors(synthetic: Features, real: Features) -> Neighbors:
    """Compares features (n, d) and (m, d) exactly; n and m must be more than `COVERAGE_K`.

    Memory beyond the features is in proportion to n + m; the time is that of two matrix products of n by m by d.
    """
    pair = _Pair.of(synthetic, real)
    real_radii = pair.real.nearest_others(COVERAGE_K)
    synthetic_radii = pair.synthetic.nearest_others(MANIFOLD_K)[:, -1]
    n, m = len(synthetic), len(real)
    nearest_real, nearest_synthetic = _Minimum(n), _Minimum(m)
    is_in_real, is_in_synthetic, is_covered = np.zeros(n, bool), np.zeros(m, bool), np.zeros(m, bool)
    num_real_balls = np.zeros(n, np.int64)
    reach = pair.real.reach(real_radii[:, -1], pair.slack), pair.synthetic.reach(synthetic_radii, pair.slack)
    for rows in _blocks(n):
        for columns in _blocks(m):
            squares = pair.synthetic.squares(rows, pair.real, columns)
            nearest_real.update(squares, rows, columns)
            nearest_synthetic.update(squares.T, columns, rows)
            left, right = _pairs_within(squares, reach[1][rows], reach[0][columns])
            left, right = left + rows.start, right + columns.start
            distances = pair.distances(left, right)
            is_in_coverage = distances <= real_radii[right, -1]
            is_in_real[left[distances <= real_radii[right, MANIFOLD_K - 1]]] = True
            is_in_synthetic[right[distances <= synthetic_radii[left]]] = True
            is_covered[right[is_in_coverage]] = True
            num_real_balls += np.bincount(left[is_in_coverage], minlength=n)
    return Neighbors(
        nearest_real=nearest_real.indices,
        nearest_real_distance=pair.distances(np.arange(n), nearest_real.indices),
        nearest_synthetic_distance=pair.distances(nearest_synthetic.indices, np.arange(m)),
        real_spacing=real_radii[:, 0],
        is_in_real=is_in_real,
        is_in_synthetic=is_in_synthetic,
        num_real_balls=num_real_balls,
        is_covered=is_covered,
    )


class _Rows:
    """Features with two more columns, so that one matrix product gives squared distances."""

    def __init__(self, features: Features, center: NDArray[np.float64], *, is_double: bool) -> None:
        import torch

        self.features = features
        kind = torch.float64 if is_double else torch.float32
        self.left = torch.empty(len(features), features.shape[1] + 2, dtype=kind)
        for rows in _blocks(len(features)):
            self.left[rows, :-2] = torch.from_numpy(features[rows] - center)
        body = self.left[:, :-2]
        self.lengths = torch.einsum("nd,nd->n", body, body)
        self.left[:, -2], self.left[:, -1] = self.lengths, 1
        # Both factors are stored, since making one anew for each block takes a tenth of the time.
        self.right = -2 * self.left
        self.right[:, -2], self.right[:, -1] = 1, self.lengths

    def __len__(self) -> int:
        return len(self.features)

    def squares(self, rows: slice, other: "_Rows", columns: slice) -> "torch.Tensor":
        """Squared distances (r, c) to rows of another set."""
        return self.left[rows] @ other.right[columns].T

    def nearest_others(self, k: int) -> NDArray[np.float64]:
        """Distances (n, k) of each row to its k nearest other rows, in ascending order."""

        count = min(k + SPARE, len(self) - 1)
        nearest = _Smallest(len(self), count)
        for rows in _blocks(len(self)):
            for columns in _blocks(len(self))[rows.start // BLOCK :]:
                squares = self.squares(rows, self, columns)
                if rows == columns:
                    squares.fill_diagonal_(math.inf)
                else:
                    nearest.update(squares.T.contiguous(), columns, rows)
                nearest.update(squares, rows, columns)
        found = np.empty((len(self), k))
        for rows in _blocks(len(self)):
            own = np.repeat(np.arange(rows.start, rows.stop), count)
            exact = _distances(self.features, own, self.features, nearest.indices[rows].ravel()).reshape(-1, count)
            found[rows] = np.sort(exact, 1)[:, :k]
        return found

    def reach(self, radii: NDArray[np.float64], slack: float) -> "torch.Tensor":
        """Squared radii (n,) of balls around the rows, larger by what rounding may add to a squared distance there."""
        import torch

        squares = torch.from_numpy(radii**2)
        # An image in a ball is at most |center| + radius long, and (a + b)² is at most 2 a² + 2 b².
        return (squares + slack * (3 * self.lengths.double() + 2 * squares)).to(self.left.dtype)


class _Smallest:
    """The smallest values of each of n rows, and the columns where they are, over blocks of columns."""

    def __init__(self, num_rows: int, count: int) -> None:
        self.values = np.full((num_rows, count), np.inf)
        self.indices = np.zeros((num_rows, count), np.int64)

    def update(self, squares: "torch.Tensor", rows: slice, columns: slice) -> None:
        import torch

        count = self.values.shape[1]
        some = torch.topk(squares, min(count, squares.shape[1]), largest=False, sorted=False)
        values = np.concatenate([self.values[rows], some.values.numpy()], 1)
        indices = np.concatenate([self.indices[rows], some.indices.numpy() + columns.start], 1)
        chosen = np.argpartition(values, count - 1, axis=1)[:, :count]
        self.values[rows] = np.take_along_axis(values, chosen, 1)
        self.indices[rows] = np.take_along_axis(indices, chosen, 1)


class _Minimum:
    """The smallest value of each of n rows, and the column where it is, over blocks of columns."""

    def __init__(self, num_rows: int) -> None:
        self.values = np.full(num_rows, np.inf)
        self.indices = np.zeros(num_rows, np.int64)

    def update(self, squares: "torch.Tensor", rows: slice, columns: slice) -> None:
        import torch

        values = squares.amin(1).numpy()
        # Where it is, which costs more than what it is, is looked up only in rows whose minimum is here.
        nearer = np.flatnonzero(values < self.values[rows])
        self.values[rows.start + nearer] = values[nearer]
        self.indices[rows.start + nearer] = squares[torch.from_numpy(nearer)].argmin(1).numpy() + columns.start


@dataclass(frozen=True)
class _Pair:
    synthetic: _Rows
    real: _Rows
    slack: float
    """Largest error of a squared distance, as a share of the squared lengths of both images."""

    @classmethod
    def of(cls, synthetic: Features, real: Features) -> "_Pair":
        center = real.mean(0, dtype=np.float64)
        size = real.shape[1]
        is_double = float(len(synthetic)) * len(real) * size <= MAX_DOUBLE
        slack = float(np.finfo(np.float64 if is_double else np.float32).eps) * 4 * math.sqrt(size)
        return cls(_Rows(synthetic, center, is_double=is_double), _Rows(real, center, is_double=is_double), slack)

    def distances(self, synthetic: NDArray[np.int64], real: NDArray[np.int64]) -> NDArray[np.float64]:
        """Exact distances (p,) of p pairs of a synthetic and a real image."""
        return _distances(self.synthetic.features, synthetic, self.real.features, real)


def _pairs_within(
    squares: "torch.Tensor", row_limits: "torch.Tensor", column_limits: "torch.Tensor"
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the squared distances (r, c) that are at most the limit of their row or of their column."""
    import torch

    is_within = squares <= torch.maximum(row_limits[:, None], column_limits)
    # Nearly all are false, so eight at a time are looked at.
    flat = is_within.numpy().ravel()
    whole = len(flat) // 8 * 8
    eights = np.flatnonzero(flat[:whole].view(np.int64))
    found = (8 * eights[:, None] + np.arange(8)).ravel()
    found = np.concatenate([found[flat[found]], whole + np.flatnonzero(flat[whole:])])
    rows, columns = np.divmod(found, squares.shape[1])
    return rows, columns


def _blocks(count: int) -> list[slice]:
    return [slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]


def _distances(
    features: Features, rows: NDArray[np.int64], others: Features, other_rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """l2 distances (p,) of p pairs of rows, in double precision."""
    found = np.empty(len(rows))
    for start in range(0, len(rows), PAIRS // 8):
        some = slice(start, start + PAIRS // 8)
        steps = features[rows[some]].astype(np.float64) - others[other_rows[some]]
        found[some] = np.sqrt(np.einsum("pd,pd->p", steps, steps))
    return found
