import pytest

from fakeit_train.schedules import ema_decay, warm_up_cosine


def test_schedules__rises_over_a_tenth_and_falls_as_a_cosine() -> None:
    rates = [warm_up_cosine(step, 100, 0.2, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([0.02 * (step + 1) for step in range(10)])
    assert rates[10] == max(rates) == 0.2
    assert rates[55] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True) and 0 < rates[-1] < 0.001


def test_schedules__no_warm_up_starts_at_the_peak() -> None:
    assert warm_up_cosine(0, 10, 0.1, 0.0) == 0.1


def test_schedules__falls_to_the_lowest_rate() -> None:
    rates = [warm_up_cosine(step, 10_000, 0.1, 0.0, 0.01) for step in range(10_000)]
    assert rates[5000] == pytest.approx(0.055) and 0.01 < rates[-1] < 0.01001


def test_schedules__the_average_forgets_its_start_by_a_warm_up() -> None:
    assert [ema_decay(step, 0.9, has_warm_up=True) for step in (0, 8, 1000)] == [0.1, 0.5, 0.9]
    assert ema_decay(0, 0.9, has_warm_up=False) == 0.9
