"""Near-duplicates: pictures whose perceptual hashes differ in few bits, found by faiss's exact multi-index hashing."""

import numpy as np
from numpy.typing import NDArray

BITS_APART = 12
"""Hashes of 144 bits that differ in fewer are of one picture. A copy in another size or JPEG quality differs in 0 to 8, one a
tenth brighter in 0 to 16; the two nearest of 200 distinct digits in 18."""
BITS_PER_TABLE = 12
QUERIES = 4096


def nearest_earlier(hashes: NDArray[np.uint8], bits_apart: int = BITS_APART) -> NDArray[np.int64]:
    """Of hashes (n, bytes): the number of the first one before it that is fewer than `bits_apart` away; -1 where none is."""
    import faiss

    num_bits = 8 * hashes.shape[1]
    # With as many tables as bits may differ, one table at least sees no difference: so none is missed.
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
