"""Times arms in turns: every round runs each arm once, in rotated order, and ratios are taken within a round."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from tests.acceptance.record import ROOT


def in_turns(names: Iterable[str], num_rounds: int) -> Iterator[tuple[int, str]]:
    """Yields round and arm; round 0 is a warm-up that does not count."""
    order = list(names)
    for number in range(num_rounds + 1):
        turn = number % len(order)
        yield from ((number, name) for name in order[turn:] + order[:turn])


def call_alone(python: str, script: str, *arguments: object) -> Any:
    """Runs a script of this folder in a process of its own, on one thread; returns its last line as JSON, or None.

    Only our own Python finds our packages, because they would hide packages of another environment.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}
    environment["PYTHONPATH"] = str(ROOT) if python == sys.executable else ""
    command = [python, str(ROOT / "benchmarks" / script), *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    if ended.returncode:
        raise RuntimeError(f"{arguments[:2]}: {ended.stderr[-2000:]}")
    lines = ended.stdout.splitlines()
    return json.loads(lines[-1]) if lines else None


def time_in_turns(arms: Mapping[str, Callable[[], object]], num_rounds: int) -> dict[str, list[float]]:
    """Returns the seconds of each arm in each round, after a warm-up round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for number, name in in_turns(arms, num_rounds):
        start = time.perf_counter()
        arms[name]()
        if number:
            seconds[name].append(time.perf_counter() - start)
            print(f"round {number}: {name} {seconds[name][-1]:.2f} s", flush=True)
    return seconds


def ratios(first: list[float], second: list[float]) -> list[float]:
    """Returns first / second for each round."""
    return [a / b for a, b in zip(first, second, strict=True)]


def spread(values: list[float], digits: int = 2) -> str:
    """Formats median and range: "1.03 (1.01 to 1.05)"."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
