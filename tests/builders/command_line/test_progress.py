import io
import sys

import pytest

from builders.command_line import progress


def count(num: int, monkeypatch: pytest.MonkeyPatch, seconds: float, is_terminal: bool = False) -> str:
    """Returns what a bar of ten units writes to stderr."""
    stream = io.StringIO()
    stream.isatty = lambda: is_terminal  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", seconds)
    with progress.progress(10, desc="counting {1}", unit="sheep") as bar:
        for _ in range(num):
            bar.update()
    return stream.getvalue()


def test_progress__a_log_gets_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = count(10, monkeypatch, seconds=1e-9).splitlines()
    assert len(lines) >= 10 and lines[-1].startswith("counting {1}: 10 of 10 sheep (100 %), ")
    assert not any("\r" in line for line in lines)


def test_progress__a_short_command_writes_nothing_to_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    assert count(10, monkeypatch, seconds=60) == ""


def test_progress__a_terminal_gets_a_redrawn_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\rcounting {1}: 100%" in count(10, monkeypatch, seconds=60, is_terminal=True)
