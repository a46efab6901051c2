import os
import signal
import time

import pytest

from fakeit_train.signals import StopSignals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_signals__signals_are_recorded_and_handlers_restored(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignals().received() as stop:
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        assert stop.signals == [number]
    assert signal.getsignal(number) is before
