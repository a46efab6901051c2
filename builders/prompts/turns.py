"""The order in which a class's images use its prompts: a pure function of the recipe's seed, the class and the weights.

A class takes turns: turn t is its images K t … K t + K - 1, which share a prompt. Without weights, its prompts come in a
shuffled order, each once before any twice. With weights w_i that add up to 1, any first L turns use prompt i floor(w_i L)
or ceil(w_i L) times.
"""

import hashlib
import heapq
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray


def shuffled_rows(seed: int, class_id: str, num_rows: int) -> NDArray[np.int64]:
    """Returns a class's rows in their shuffled order, (num_rows,).

    They are sorted by 64-bit keys from SHAKE128 over "<seed>/prompts/<class id>", big-endian; equal keys by row.
    """
    stream = hashlib.shake_128(f"{seed}/prompts/{class_id}".encode()).digest(8 * num_rows)
    return np.argsort(np.frombuffer(stream, dtype=">u8"), kind="stable")


class Turns:
    """The row of each turn of a class: `turns[t]`, for any t from 0.

    The j-th use of a prompt of weight w may come at turn floor((j - 1) / w) + 1 at the earliest, and must come by turn
    ceil(j / w), where turns count from 1. Among the prompts that may come, the one that must come first does; equal ones
    in their shuffled order. This is the schedule "earliest deadline first", which meets all deadlines whenever one
    processor can (Baruah, Cohen, Plaxton and Varvel, Proportionate progress, 1996). It repeats once the weights, as whole
    numbers without a common divisor, have been used up.
    """

    def __init__(self, order: NDArray[np.int64], weights: Sequence[float]) -> None:
        """Takes the rows in their shuffled order, and the weight of each row by its number, each above 0."""
        self._order = order
        shares = _whole_numbers([weights[row] for row in order])
        self._period = sum(shares)
        self._shares = shares
        self._is_even = len(set(shares)) == 1
        self._rows: list[int] = []
        self._ready: list[tuple[int, int]] = []
        self._waiting = [(1, rank) for rank in range(len(shares))]
        self._num_uses = [0] * len(shares)

    def __getitem__(self, turn: int) -> int:
        turn %= self._period
        if self._is_even:
            return int(self._order[turn])
        while len(self._rows) <= turn:
            self._rows.append(int(self._order[self._next_rank()]))
        return self._rows[turn]

    def _next_rank(self) -> int:
        now = len(self._rows) + 1
        while self._waiting and self._waiting[0][0] <= now:
            _, rank = heapq.heappop(self._waiting)
            deadline = -(-(self._num_uses[rank] + 1) * self._period // self._shares[rank])
            heapq.heappush(self._ready, (deadline, rank))
        _, rank = heapq.heappop(self._ready)
        self._num_uses[rank] += 1
        heapq.heappush(self._waiting, (self._num_uses[rank] * self._period // self._shares[rank] + 1, rank))
        return rank


def _whole_numbers(weights: Sequence[float]) -> list[int]:
    """Returns the weights as whole numbers in the same proportions, without a common divisor; 0.1 is a tenth."""
    fractions = [Fraction(repr(weight)) for weight in weights]
    scale = math.lcm(*(fraction.denominator for fraction in fractions))
    whole = [int(fraction * scale) for fraction in fractions]
    divisor = math.gcd(*whole)
    return [number // divisor for number in whole]
