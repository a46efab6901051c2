import pytest

from fakeit_train.schedules import warm_up_cosine


def test_schedules__rises_over_a_tenth_and_falls_as_a_cosine() -> None:
    rates = [warm_up_cosine(step, 100, 0.2, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([0.02 * (step + 1) for step in range(10)])
    assert rates[10] == max(rates) == 0.2
    assert rates[55] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True) and 0 < rates[-1] < 0.001


def test_schedules__no_warm_up_starts_at_the_peak() -> None:
    assert warm_up_cosine(0, 10, 0.1, 0.0) == 0.1
