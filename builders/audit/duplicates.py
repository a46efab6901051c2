"""Finds near-duplicates: images whose perceptual hashes differ in few bits, by faiss's exact multi-index hashing."""

import numpy as np
from numpy.typing import NDArray

BITS_APART = 12
"""Two images are near-duplicates if their hashes of 144 bits differ in fewer bits than this.

A copy in another size or JPEG quality differs in 0 to 8 bits, a copy that is a tenth brighter in 0 to 16.
The two nearest of 200 distinct digits differ in 18.
"""
BITS_PER_TABLE = 12
QUERIES = 4096
"""Number of hashes per search."""


def nearest_earlier(hashes: NDArray[np.uint8], bits_apart: int = BITS_APART) -> NDArray[np.int64]:
    """Returns for each hash (n, bytes) the first earlier one fewer than `bits_apart` bits away; -1 if none."""
    import faiss

    num_bits = 8 * hashes.shape[1]
    # Fewer bits differ than there are tables, so at least one table sees no difference: no pair is missed.
    index = faiss.IndexBinaryMultiHash(num_bits, num_bits // BITS_PER_TABLE, BITS_PER_TABLE)
    assert bits_apart <= num_bits // BITS_PER_TABLE
    index.nflip = 0
    index.add(np.ascontiguousarray(hashes))
    first = np.full(len(hashes), -1, np.int64)
    for start in range(0, len(hashes), QUERIES):
        ends, _, found = index.range_search(np.ascontiguousarray(hashes[start : start + QUERIES]), bits_apart)
        for row in range(len(ends) - 1):
            earliest = found[ends[row] : ends[row + 1]].min(initial=start + row)
            if earliest < start + row:
                first[start + row] = earliest
    return first
