"""Signal handlers that wait for imports to end.

A Python exception that a handler raises in the middle of an import can pass through C++ that is not ready for it: torch ends
the process with `terminate called after throwing an instance of 'pybind11::error_already_set'`.
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
Handler = Callable[[int, FrameType | None], object]


def after_imports(handler: Handler) -> Handler:
    """The same handler, which sends the signal again while a module is being imported."""

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
    have_come: bool = False
    """Whether Ctrl-C was pressed. Libraries turn the exception into others: safetensors says that a file cannot be read."""


@contextmanager
def interrupts_after_imports() -> Iterator[Interrupts]:
    """In the main thread: Ctrl-C raises KeyboardInterrupt, but in the middle of no import."""
    interrupts = Interrupts()

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupts.have_come = True
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
