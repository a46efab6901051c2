"""One interface for features (n, d) in memory, on disk, or in several blocks."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Rows(Protocol):
    """float32 features (n, d); only the requested rows are read."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, rows: "slice | NDArray[np.int64]", /) -> NDArray[np.float32]: ...


class Stacked:
    """Concatenates several blocks of rows without copying them."""

    def __init__(self, blocks: Sequence[Rows]) -> None:
        self.blocks = blocks
        self.ends = np.cumsum([len(block) for block in blocks])

    @property
    def shape(self) -> tuple[int, ...]:
        return int(self.ends[-1]), self.blocks[0].shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: "slice | NDArray[np.int64]") -> NDArray[np.float32]:
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(len(self))
            return np.concatenate([
                block[max(start - begin, 0) : max(min(stop - begin, len(block)), 0)] for begin, block in self._begins()
            ])  # fmt: skip
        found = np.empty((len(rows), self.shape[1]), dtype=np.float32)
        for begin, block in self._begins():
            is_here = (rows >= begin) & (rows < begin + len(block))
            if is_here.any():
                found[is_here] = block[rows[is_here] - begin]
        return found

    def _begins(self) -> list[tuple[int, Rows]]:
        return [(int(end) - len(block), block) for end, block in zip(self.ends, self.blocks, strict=True)]


class UnitRows:
    """Scales rows to length 1 when they are read; rows of zeros stay zero."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    @property
    def shape(self) -> tuple[int, ...]:
        return self.rows.shape

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: "slice | NDArray[np.int64]") -> NDArray[np.float32]:
        block = np.asarray(self.rows[rows], dtype=np.float64)
        lengths = np.linalg.norm(block, axis=1, keepdims=True)
        return np.asarray(block / np.where(lengths > 0, lengths, 1), dtype=np.float32)
