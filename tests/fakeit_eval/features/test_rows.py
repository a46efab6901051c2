import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fakeit_eval.features.rows import Stacked, UnitRows


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_rows__stacked_rows_are_the_concatenation(sizes: list[int], data: st.DataObject) -> None:
    blocks = [
        np.random.default_rng(number).normal(size=(size, 3)).astype(np.float32) for number, size in enumerate(sizes)
    ]
    whole, stacked = np.concatenate(blocks), Stacked(blocks)
    start, stop = sorted(data.draw(st.tuples(st.integers(0, len(whole)), st.integers(0, len(whole)))))
    rows = np.array(data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=6)), dtype=np.int64)
    assert stacked.shape == whole.shape and len(stacked) == len(whole)
    assert np.array_equal(stacked[start:stop], whole[start:stop]) and np.array_equal(stacked[rows], whole[rows])


def test_rows__unit_rows_are_scaled_to_length_one() -> None:
    rows = UnitRows(np.array([[3, 4], [0, 0], [0, 2]], dtype=np.float32))
    expected = np.array([[0.6, 0.8], [0, 0], [0, 1]])
    assert np.allclose(rows[:], expected) and np.allclose(rows[np.array([2])], expected[2:])
