import io
import sys

import pytest

from builders.command_line import progress


def count(num: int, monkeypatch: pytest.MonkeyPatch, seconds: float, is_terminal: bool = False) -> str:
    """What is said while something is counted to ten."""
    said = io.StringIO()
    said.isatty = lambda: is_terminal  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", said)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", seconds)
    with progress.progress(10, desc="counting {1}", unit="sheep") as bar:
        for _ in range(num):
            bar.update()
    return said.getvalue()


def test_progress__in_a_log_it_is_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = count(10, monkeypatch, seconds=1e-9).splitlines()
    assert len(lines) >= 10 and lines[-1].startswith("counting {1}: 10 of 10 sheep (100 %), ")
    assert not any("\r" in line for line in lines)


def test_progress__of_what_is_short_a_log_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert count(10, monkeypatch, seconds=60) == ""


def test_progress__on_a_terminal_it_is_drawn_over_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\rcounting {1}: 100%" in count(10, monkeypatch, seconds=60, is_terminal=True)
