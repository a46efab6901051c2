"""Timing of arms in turns: every round runs each arm once, in rotated order, and ratios are taken within a round."""

import statistics
import time
from collections.abc import Callable, Mapping


def time_in_turns(arms: Mapping[str, Callable[[], object]], num_rounds: int) -> dict[str, list[float]]:
    """Seconds of each arm in each round, after one round that does not count."""
    names = list(arms)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(num_rounds + 1):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            arms[name]()
            if number:
                seconds[name].append(time.perf_counter() - start)
                print(f"round {number}: {name} {seconds[name][-1]:.2f} s", flush=True)
    return seconds


def ratios(first: list[float], second: list[float]) -> list[float]:
    """first / second of each round."""
    return [a / b for a, b in zip(first, second, strict=True)]


def spread(values: list[float], digits: int = 2) -> str:
    """Median and range: "1.03 (1.01 to 1.05)"."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
