"""Stop signals, and a watchdog that ends a rank blocked by another rank that has died.

The training loop checks after each step for SIGTERM, SIGUSR1 and Ctrl-C, saves a checkpoint and ends. torchrun also
sends SIGTERM to the surviving ranks when a rank dies. A rank blocked in an NCCL collective cannot run Python signal
handlers, so a watchdog thread (woken through `signal.set_wakeup_fd`) ends its process.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name))
"""Signals that clusters send before they reclaim a machine, and Ctrl-C. Windows has no SIGUSR1."""
PATIENCE = 10.0
"""Seconds that a collective may block after a stop signal; at least three times the longest one so far."""


def ignore_signals() -> None:
    """Makes a loader worker ignore stop signals.

    Signals reach the whole process group, and the training process decides when its workers end.
    """
    signal.set_wakeup_fd(-1)
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class StopSignals:
    """Collects stop signals inside `received()`.

    After a stop signal, a watchdog ends the process if a collective inside `watched()` blocks for too long.
    """

    def __init__(self) -> None:
        self.signals: list[int] = []
        self._began: float | None = None
        self._longest = 0.0

    @contextmanager
    def received(self) -> Iterator["StopSignals"]:
        """Records stop signals, which then do not end the process; for the main thread only."""
        before = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        wakeup_before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        watcher = threading.Thread(target=self._watch, args=(ours,), daemon=True)
        watcher.start()
        try:
            yield self
        finally:
            signal.set_wakeup_fd(wakeup_before)
            # A shutdown ends the watchdog thread. Closing alone would not if a forked child also holds the socket.
            theirs.shutdown(socket.SHUT_WR)
            theirs.close()
            watcher.join()
            ours.close()
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Marks a blocking collective; the watchdog may end the process only inside this context."""
        self._began = time.monotonic()
        try:
            yield
        finally:
            self._longest = max(self._longest, time.monotonic() - self._began)
            self._began = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signals.append(number)

    def _watch(self, woken: socket.socket) -> None:
        woken.settimeout(None)
        stopped_at = None
        while True:
            try:
                received = woken.recv(1)
            except TimeoutError:
                received = b"\0"
            if not received:
                return
            if received[0] in STOP_SIGNALS and stopped_at is None:
                stopped_at = time.monotonic()
                woken.settimeout(0.2)
            began, now = self._began, time.monotonic()
            if stopped_at and began and now - max(began, stopped_at) > max(PATIENCE, 3 * self._longest):
                sys.stderr.write(
                    f"fakeit-train: rank {os.environ.get('RANK', '0')} received a stop signal but is blocked by another "
                    "rank, whose message gives the reason; --resume continues from the last checkpoint\n"
                )
                sys.stderr.flush()
                os._exit(1)
