"""The order of the classes in a clone: arithmetic that finds any sample without a table.

With base counts n_c and their maximum n_max, class c has an image in round r if
floor((r+1) n_c / n_max) > floor(r n_c / n_max). Its index within the class is floor(r n_c / n_max).
A shard is a whole number of rounds.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

MAX_COUNT = 10**8
"""Upper limit for the number of images of a class: keys number them with eight digits."""


@dataclass(frozen=True)
class Rounds:
    base_counts: tuple[int, ...]
    """Number of images of each class in the 1x clone, by label; each at least 1."""
    shard_size: int
    """Approximate number of images in a shard."""

    @cached_property
    def _counts(self) -> NDArray[np.int64]:
        return np.array(self.base_counts, dtype=np.int64)

    def taken(self, rounds: int) -> NDArray[np.int64]:
        """Returns the number of images of each class in the first `rounds` rounds, int64 (num_classes,).

        For class c it is floor(rounds n_c / n_max).
        """
        return rounds * self._counts // self._counts.max()

    def num_samples_before(self, rounds: int) -> int:
        """Returns the number of images in the first `rounds` rounds."""
        return int(self.taken(rounds).sum())

    @cached_property
    def per_shard(self) -> int:
        """The number of rounds in a shard: the one that comes nearest to `shard_size` images, at least 1."""
        counts = self._counts
        return max(1, round(Fraction(self.shard_size * int(counts.max()), int(counts.sum()))))

    def find_shard(self, label: int, index: int) -> int:
        """Returns the shard of the index-th image of a class.

        The image is in the first round r with floor((r+1) n_c / n_max) > index.
        """
        counts = self._counts
        number = -(-(index + 1) * int(counts.max()) // int(counts[label])) - 1
        return number // self.per_shard
