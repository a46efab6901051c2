"""Stop signals: SIGTERM, SIGUSR1 and Ctrl-C, after which the training loop saves a checkpoint and ends.

torchrun sends SIGTERM to the surviving ranks when a rank dies, and SIGKILL after 30 seconds to a rank that is blocked in
a collective.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name))
"""Signals that clusters send before they reclaim a machine, and Ctrl-C. Windows has no SIGUSR1."""


def ignore_signals() -> None:
    """Makes a loader worker ignore stop signals.

    Signals reach the whole process group, and the training process decides when its workers end.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class StopSignals:
    """Collects stop signals inside `received()`."""

    def __init__(self) -> None:
        self.signals: list[int] = []

    @contextmanager
    def received(self) -> Iterator["StopSignals"]:
        """Records stop signals, which then do not end the process; for the main thread only."""
        before = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signals.append(number)
