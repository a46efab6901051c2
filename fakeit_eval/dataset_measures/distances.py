"""Squared distances between the rows of two sets of features, as matrix products, and which of them are smallest.

Distances are computed in blocks, in single precision if there are many. Where rounding could decide which rows are nearest,
they are computed again in double precision.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Features = NDArray[np.float32]
"""(n, d)."""
MAX_DOUBLE = 1e9
"""Up to this many products of numbers all distances are computed in double precision."""
BLOCK = 2048
"""Rows and columns of a block of distances."""
SPARE = 4
"""Nearest candidates beyond k whose distances are computed again in double precision."""
TOLERANCE = 1e-3
"""Relative error of a squared distance up to which it stands for the nearest image."""
QUERIES = 256
"""Rows whose distances to all others in double precision are in memory at once."""
PAIRS = 1 << 13
"""Pairs whose differences are in memory at once."""


class Rows:
    """Features with two more columns, so that one matrix product gives squared distances."""

    def __init__(self, features: Features, center: NDArray[np.float64], *, is_double: bool) -> None:
        import torch

        self.features, self.center = features, center
        self.slack = float(np.finfo(np.float64 if is_double else np.float32).eps) * 4 * math.sqrt(features.shape[1])
        """Largest error of a squared distance, as a share of the squared lengths of both images."""
        kind = torch.float64 if is_double else torch.float32
        self.right = torch.empty(len(features), features.shape[1] + 2, dtype=kind)
        self.lengths = torch.empty(len(features), dtype=kind)
        for rows in blocks(len(features)):
            body = torch.from_numpy(features[rows] - center).to(kind)
            self.lengths[rows] = torch.einsum("nd,nd->n", body, body)
            self.right[rows, :-2] = -2 * body
        self.right[:, -2], self.right[:, -1] = 1, self.lengths

    def __len__(self) -> int:
        return len(self.features)

    def left(self, rows: slice) -> "torch.Tensor":
        """The left factor (r, d + 2) of `squares` for some rows; the right one is stored for all."""
        import torch

        right = self.right[rows]
        return torch.cat([-0.5 * right[:, :-2], right[:, -1:], right[:, -2:-1]], 1)

    def squares(self, left: "torch.Tensor", columns: slice) -> "torch.Tensor":
        """Squared distances (r, c) of rows of any set, given by their left factor, to some of these rows."""
        return left @ self.right[columns].T

    def nearest_others(self, k: int) -> NDArray[np.float64]:
        """Distances (n, k) of each row to its k nearest other rows, in ascending order."""
        count = min(k + SPARE, len(self) - 1)
        nearest = Smallest(len(self), count)
        for rows in blocks(len(self)):
            left = self.left(rows)
            for columns in blocks(len(self))[rows.start // BLOCK :]:
                squares = self.squares(left, columns)
                if rows == columns:
                    squares.fill_diagonal_(math.inf)
                else:
                    nearest.update(squares.T.contiguous(), columns, rows)
                nearest.update(squares, rows, columns)
        found = np.empty((len(self), k))
        for rows in blocks(len(self)):
            own = np.repeat(np.arange(rows.start, rows.stop), count)
            exact = row_distances(self.features, own, self.features, nearest.indices[rows].ravel()).reshape(-1, count)
            found[rows] = np.sort(exact, 1)[:, :k]
        if count < len(self) - 1:
            # Another row may be nearer than the k-th if rounding could hide it behind the last candidate.
            lengths = self.lengths.double().numpy()
            is_doubtful = nearest.values.max(1) - self.slack * 4 * (lengths + found[:, -1] ** 2) < found[:, -1] ** 2
            doubtful = np.flatnonzero(is_doubtful)
            found[doubtful] = _nearest_in_double(self, doubtful, self, k)[1]
        return found

    def refined(self, nearest: "Minimum", other: "Rows") -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Indices (n,) of the nearest rows of another set, and distances, in double precision where it is needed."""
        indices = nearest.indices.copy()
        distances = row_distances(self.features, np.arange(len(self)), other.features, indices)
        error = self.slack * 4 * (self.lengths.double().numpy() + distances**2)
        rows = np.flatnonzero(error > TOLERANCE * distances**2)
        nearer, found = _nearest_in_double(self, rows, other, 1)
        indices[rows], distances[rows] = nearer[:, 0], found[:, 0]
        return indices, distances

    def reach(self, radii: NDArray[np.float64]) -> "torch.Tensor":
        """Squared radii (n,) of balls around the rows, larger by what rounding may add to a squared distance there."""
        import torch

        squares = torch.from_numpy(radii**2)
        # An image in a ball is at most |center| + radius long, and (a + b)² is at most 2 a² + 2 b².
        return (squares + self.slack * (3 * self.lengths.double() + 2 * squares)).to(self.right.dtype)


class Smallest:
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


class Minimum:
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


def _nearest_in_double(
    queries: Rows, rows: NDArray[np.int64], other: Rows, k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Indices and distances (q, k) of the nearest rows of another set, or of the other rows of the same, in ascending order."""
    indices, distances = np.empty((len(rows), k), np.int64), np.empty((len(rows), k))
    for start in range(0, len(rows), QUERIES):
        own = rows[start : start + QUERIES]
        some = queries.features[own] - queries.center
        lengths = np.einsum("nd,nd->n", some, some)
        squares = np.empty((len(own), len(other)))
        for columns in blocks(len(other)):
            others = other.features[columns] - queries.center
            squares[:, columns] = lengths[:, None] + np.einsum("nd,nd->n", others, others) - 2 * some @ others.T
        if queries is other:
            squares[np.arange(len(own)), own] = np.inf
        count = min(k + SPARE, len(other) - (queries is other))
        nearest = np.argpartition(squares, count - 1, axis=1)[:, :count]
        exact = row_distances(queries.features, np.repeat(own, count), other.features, nearest.ravel()).reshape(
            -1, count
        )
        order = np.argsort(exact, 1, kind="stable")[:, :k]
        indices[start : start + QUERIES] = np.take_along_axis(nearest, order, 1)
        distances[start : start + QUERIES] = np.take_along_axis(exact, order, 1)
    return indices, distances


def pairs_within(
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


def blocks(count: int) -> list[slice]:
    return [slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]


def row_distances(
    features: Features, rows: NDArray[np.int64], others: Features, other_rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """l2 distances (p,) of p pairs of rows, in double precision."""
    found = np.empty(len(rows))
    for start in range(0, len(rows), PAIRS):
        some = slice(start, start + PAIRS)
        steps = features[rows[some]].astype(np.float64) - others[other_rows[some]]
        found[some] = np.sqrt(np.einsum("pd,pd->p", steps, steps))
    return found
