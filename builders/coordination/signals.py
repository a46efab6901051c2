"""Signals that end a run early, as schedulers send them: SIGUSR1 ahead of a time limit, SIGTERM when the machine is taken."""

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

from builders.command_line.interrupts import after_imports
from builders.errors import UserError

IS_STOPPED = 75
"""Exit status of a run that a signal ended with work left (EX_TEMPFAIL)."""


class Preempted(BaseException):
    """The run was told to stop at once; what is half made is dropped."""


class StoppedError(UserError):
    """The run was asked to end early; what was finished is kept."""

    def __init__(self) -> None:
        super().__init__("stopped by a signal; what is finished is kept, run the command again to go on")


@dataclass
class Stop:
    """Whether the run was asked to end once what is in the making is finished."""

    is_requested: bool = False


@contextlib.contextmanager
def on_signals() -> Iterator[Stop]:
    """In the main thread: SIGUSR1 asks for a stop, SIGTERM raises `Preempted`."""
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.is_requested = True

    def drop(number: int, frame: FrameType | None) -> None:
        raise Preempted

    before = {
        number: signal.signal(number, handler)
        for number, handler in ((getattr(signal, "SIGUSR1", None), ask), (signal.SIGTERM, after_imports(drop)))
        if number is not None
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
