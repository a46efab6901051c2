"""Signal handlers that wait until a running import has ended.

If a handler raises a Python exception in the middle of an import, the exception can pass through C++ code that does not
expect it. torch then ends the process with
`terminate called after throwing an instance of 'pybind11::error_already_set'`.
"""

import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SECONDS_TO_WAIT = 0.05
"""Delay before a signal is sent again during an import."""
Handler = Callable[[int, FrameType | None], object]


def after_imports(handler: Handler) -> Handler:
    """Wraps a signal handler. During an import, the signal is sent again after a short delay instead."""

    @functools.wraps(handler)
    def wait_or_handle(number: int, frame: FrameType | None) -> None:
        if _is_importing(frame):
            timer = threading.Timer(SECONDS_TO_WAIT, os.kill, (os.getpid(), number))
            timer.daemon = True
            timer.start()
        else:
            handler(number, frame)

    return wait_or_handle


@dataclass
class Interrupts:
    is_interrupted: bool = False
    """Whether Ctrl-C was pressed. Libraries convert the exception: safetensors reports that a file cannot be read."""


@contextmanager
def interrupts_after_imports() -> Iterator[Interrupts]:
    """Makes Ctrl-C raise KeyboardInterrupt in the main thread, but never in the middle of an import."""
    interrupts = Interrupts()

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupts.is_interrupted = True
        raise KeyboardInterrupt

    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interrupts
        return
    signal.signal(signal.SIGINT, after_imports(interrupt))
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
