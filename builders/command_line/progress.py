"""Shows the progress of a long command: a bar on a terminal, an occasional line elsewhere, as in a log."""

import sys
from typing import Any, TextIO

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0
"""Interval between two lines in a log. A command that takes less time writes none."""
LINE = "{n_fmt} of {total_fmt} {unit} ({percentage:.0f} %), {rate_fmt}{postfix}"
UP = "\x1b[A"
"""Escape sequence with which tqdm returns from an inner bar to an outer one."""


def progress(
    total: int, *, initial: int = 0, unit: str = "img", desc: str = "", leave: bool = True, is_shown: bool = True
) -> "tqdm[Any]":
    """Returns a bar of `total` units, `initial` of which are done; `update(n)` advances it.

    Numbers of bytes (unit "B") are scaled. Without `leave`, the bar disappears from the terminal when it is closed.
    """
    is_bytes = unit == "B"
    options: dict[str, Any] = {"unit_scale": is_bytes, "unit_divisor": 1024 if is_bytes else 1000, "desc": desc}
    if not getattr(sys.stderr, "isatty", bool)():
        words = desc.replace("{", "{{").replace("}", "}}")
        line = f"{words}: {LINE}" if desc else LINE
        options |= {"file": _Lines(sys.stderr), "bar_format": line, "delay": SECONDS_BETWEEN_LINES}
        options |= {"mininterval": SECONDS_BETWEEN_LINES, "maxinterval": SECONDS_BETWEEN_LINES}
    return tqdm(total=total, initial=initial, unit=unit, leave=leave, disable=not is_shown, **options)


class _Lines:
    """A stream that turns a bar, which tqdm draws over itself, into separate lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        if line := text.replace(UP, "").strip():
            self._stream.write(f"{line}\n")

    def flush(self) -> None:
        self._stream.flush()
