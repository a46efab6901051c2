"""Tests the search for near-duplicates against a comparison of all pairs."""

import numpy as np
import pytest

from builders.audit.duplicates import BITS_APART, nearest_earlier
from builders.audit.image_checks import HASH_BYTES


@pytest.mark.parametrize("num_bits", [0, 1, BITS_APART - 1, BITS_APART, 40])
def test_duplicates__equal_a_comparison_of_all_pairs(num_bits: int) -> None:
    rng = np.random.default_rng(num_bits)
    bits = rng.integers(0, 2, (300, 8 * HASH_BYTES), dtype=np.uint8)
    # The last hundred are copies of earlier ones with some bits flipped.
    for number in range(200, 300):
        flipped = rng.choice(8 * HASH_BYTES, num_bits, replace=False)
        bits[number] = bits[number - 150]
        bits[number, flipped] ^= 1
    apart = (bits[:, None] != bits[None]).sum(axis=2)
    expected = [next((j for j in range(i) if apart[i, j] < BITS_APART), -1) for i in range(300)]
    assert nearest_earlier(np.packbits(bits, axis=1)).tolist() == expected
    assert (np.array(expected[200:]) >= 0).all() == (num_bits < BITS_APART)


def test_duplicates__of_one_image_and_of_none() -> None:
    assert nearest_earlier(np.zeros((1, HASH_BYTES), np.uint8)).tolist() == [-1]
    assert nearest_earlier(np.zeros((0, HASH_BYTES), np.uint8)).tolist() == []
