"""Signals with which a batch system ends a run early: SIGUSR1 ahead of a time limit, SIGTERM at preemption."""

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
    """The run must end at once. Shards in progress are dropped."""


class StoppedError(UserError):
    """A signal ended the run early. Finished shards are kept."""

    def __init__(self) -> None:
        super().__init__("stopped by a signal; what is finished is kept, run the command again to continue")


@dataclass
class Stop:
    """Whether the run must end once the shards in progress are finished."""

    is_requested: bool = False


@contextlib.contextmanager
def on_signals() -> Iterator[Stop]:
    """In the main thread, makes SIGUSR1 request a stop, and SIGTERM raise `Preempted`."""
    stop = Stop()

    def request_stop(number: int, frame: FrameType | None) -> None:
        stop.is_requested = True

    def preempt(number: int, frame: FrameType | None) -> None:
        raise Preempted

    before = {
        number: signal.signal(number, handler)
        for number, handler in (
            (getattr(signal, "SIGUSR1", None), request_stop),
            (signal.SIGTERM, after_imports(preempt)),
        )
        if number is not None
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
