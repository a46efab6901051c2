import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.prompts.turns import Turns, shuffled_rows

WEIGHTS = st.lists(
    st.one_of(st.integers(1, 9).map(float), st.floats(1e-3, 10).map(lambda weight: round(weight, 3))),
    min_size=1,
    max_size=9,
)


@given(WEIGHTS, st.integers(0, 2**53 - 1))
def test_turns__any_prefix_uses_each_prompt_by_its_weight(weights: list[float], seed: int) -> None:
    turns = Turns(shuffled_rows(seed, "n01", len(weights)), weights)
    total, counts = sum(Fraction(repr(weight)) for weight in weights), [0] * len(weights)
    for length in range(1, 120):
        counts[turns[length - 1]] += 1
        for weight, count in zip(weights, counts, strict=True):
            share = Fraction(repr(weight)) / total * length
            assert math.floor(share) <= count <= math.ceil(share)


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_turns__without_weights_each_comes_once_before_any_twice(weight: float) -> None:
    turns = Turns(shuffled_rows(7, "n01", 13), [weight] * 13)
    found = [turns[turn] for turn in range(39)]
    assert sorted(found[:13]) == list(range(13)) and found[:13] == found[13:26] == found[26:]


def test_turns__weights_repeat_once_they_are_used_up() -> None:
    turns = Turns(np.arange(3), [0.2, 0.5, 0.3])
    found = [turns[turn] for turn in range(30)]
    assert found[:10] == found[10:20] == found[20:] and np.bincount(found[:10]).tolist() == [2, 5, 3]
    assert turns[10**12] == found[0]


def test_turns__golden() -> None:
    """These values are in docs/format.md: they must never change."""
    assert shuffled_rows(0, "n01558993", 5).tolist() == [1, 0, 4, 3, 2]
    turns = Turns(shuffled_rows(0, "n01558993", 5), [1.0, 2.0, 4.0, 0.5, 0.5])
    assert [turns[turn] for turn in range(16)] == [2, 1, 2, 0, 2, 1, 2, 4, 2, 1, 2, 0, 2, 1, 3, 2]
