"""Stop signals, tested in real processes."""

import os
import signal
import subprocess
import sys
import time

import pytest

from fakeit_train.signals import StopSignals

WAITING = """
import os, signal, sys, threading, time
from fakeit_train import signals
signals.PATIENCE = 0.5
stop = signals.StopSignals()
with stop.received():
    if sys.argv[1] == "inside":
        with stop.watched():
            print("ready", flush=True)
            lock = threading.Lock()
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
            lock.acquire(); lock.acquire()  # blocks forever, as a collective whose other rank has died
    print("ready", flush=True)
    time.sleep(0.2)
    for _ in range(4):
        with stop.watched():
            time.sleep(0.3)
print(stop.signals)
"""


def started(where: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, where], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def test_signals__a_blocked_rank_is_ended() -> None:
    process = started("inside")
    process.send_signal(signal.SIGTERM)
    _, message = process.communicate(timeout=10)
    assert process.returncode == 1
    assert "is blocked by another rank" in message and message.count("\n") == 1


def test_signals__slow_steps_are_not_ended() -> None:
    process = started("outside")
    process.send_signal(signal.SIGTERM)
    out, message = process.communicate(timeout=10)
    assert (process.returncode, out, message) == (0, f"[{int(signal.SIGTERM)}]\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_signals__signals_are_recorded_and_handlers_restored(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignals().received() as stop:
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        assert stop.signals == [number]
    assert signal.getsignal(number) is before and signal.set_wakeup_fd(-1) == -1
