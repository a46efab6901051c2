"""Signals to stop, and the end of a process that waits for others which are gone.

SIGTERM, SIGUSR1 and Ctrl-C are noted; the training loop looks at them after each step, saves and ends. torchrun sends SIGTERM
also where another process has died: the survivors may then wait for it for ever inside a collective of GPUs, where no Python
code runs. A thread that the signal's first byte wakes ends such a process.
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
"""What clusters send before they take a machine away, and Ctrl-C; Windows has no SIGUSR1."""
PATIENCE = 10.0
"""Seconds that such a wait may go on after a signal; or three times as long as the longest one has taken."""


def ignore_signals() -> None:
    """For processes of a loader: signals go to the whole process group, and the training process decides."""
    signal.set_wakeup_fd(-1)
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class StopSignals:
    """The signals received so far, within `received()`; what may wait for ever goes within `watched()`."""

    def __init__(self) -> None:
        self.signals: list[int] = []
        self._began: float | None = None
        self._longest = 0.0

    @contextmanager
    def received(self) -> Iterator["StopSignals"]:
        """Where signals are noted instead of ending the process; in the main thread."""
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
            theirs.shutdown(socket.SHUT_WR)  # ends the watcher; to close would not, where a forked child has it, too
            theirs.close()
            watcher.join()
            ours.close()
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """What waits for other processes, and for nothing else that may take its time."""
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
                    f"fakeit-train: rank {os.environ.get('RANK', '0')} was told to stop and waits in vain for another "
                    "process; what that one said is the reason, --resume goes on from the last checkpoint\n"
                )
                sys.stderr.flush()
                os._exit(1)
