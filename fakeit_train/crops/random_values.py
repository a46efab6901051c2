"""Random numbers that depend only on their name: 53-bit fractions from SHAKE128, the same on every machine."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

NUM_VALUES = 48
"""Numbers that are computed first; each further request doubles them."""


@dataclass(frozen=True)
class RandomValues:
    """An endless sequence of uniform random numbers in [0, 1)."""

    values: Iterator[float] = field(repr=False)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * next(self.values)

    def integer(self, limit: int) -> int:
        """Returns a whole number from 0 to `limit` - 1."""
        return int(self.uniform(0, limit))

    def chance(self, probability: float) -> bool:
        return next(self.values) < probability


def random_values(seed: int, epoch: int, key: str, what: object) -> RandomValues:
    """Returns the random numbers for one purpose of a sample in an epoch, such as the number of a crop."""
    return RandomValues(_fractions(f"{seed}/{epoch}/{key}/{what}"))


def _fractions(name: str) -> Iterator[float]:
    start, count = 0, NUM_VALUES
    while True:
        # A longer digest of SHAKE128 begins with the shorter one.
        stream = hashlib.shake_128(name.encode()).digest(8 * count)
        yield from ((np.frombuffer(stream, dtype=">u8", offset=8 * start) >> 11) * 2.0**-53).tolist()
        start, count = count, 2 * count
