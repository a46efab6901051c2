"""How classes take turns in a clone: the arithmetic by which any sample is found without a table.

With base counts n_c and n_max the largest, class c takes part in round r if floor((r+1) n_c / n_max) > floor(r n_c / n_max),
with index floor(r n_c / n_max). A shard is a whole number of rounds.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

MAX_COUNT = 10**8
"""Images of a class; keys number them with eight digits."""


@dataclass(frozen=True)
class Rounds:
    base_counts: tuple[int, ...]
    """Images of each class in the 1x clone, by label; each at least 1."""
    shard_size: int
    """About how many images a shard holds."""

    @cached_property
    def _counts(self) -> NDArray[np.int64]:
        return np.array(self.base_counts, dtype=np.int64)

    def taken(self, rounds: int) -> NDArray[np.int64]:
        """How many images of each class the first `rounds` rounds hold: floor(rounds n_c / n_max)."""
        return rounds * self._counts // self._counts.max()

    def num_samples_before(self, rounds: int) -> int:
        """How many images the first `rounds` rounds hold."""
        return int(self.taken(rounds).sum())

    @cached_property
    def per_shard(self) -> int:
        """As many rounds as come nearest to `shard_size` images, and at least one."""
        counts = self._counts
        return max(1, round(Fraction(self.shard_size * int(counts.max()), int(counts.sum()))))

    def find_shard(self, label: int, index: int) -> int:
        """The shard of the index-th image of a class: its round r is the first with floor((r+1) n_c / n_max) > index."""
        counts = self._counts
        number = -(-(index + 1) * int(counts.max()) // int(counts[label])) - 1
        return number // self.per_shard
