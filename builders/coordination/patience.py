"""Waits for a store that does not answer, for as long as the user allows."""

import time
from collections.abc import Callable
from typing import TypeVar

from builders.errors import UnreachableError

Result = TypeVar("Result")

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds between two tries at a store that does not answer, beyond the storage's own."""


def retry_unreachable(
    call: Callable[[], Result],
    patience: float,
    on_wait: Callable[[], object] = lambda: None,
    is_over: Callable[[], bool] = lambda: False,
) -> Result:
    """call(), again and again where a store does not answer, for so many seconds.

    Args:
        call: May be called again after it failed halfway.
        patience: Seconds.
        on_wait: Called before each wait.
        is_over: Asked every second of a wait; true ends the patience.

    Raises:
        UnreachableError: the store does not answer for longer.
    """
    end, wait = time.monotonic() + patience, FIRST_WAIT
    while True:
        try:
            return call()
        except UnreachableError:
            if time.monotonic() >= end or is_over():
                raise
        on_wait()
        until = min(time.monotonic() + wait, end)
        while (seconds := until - time.monotonic()) > 0 and not is_over():
            time.sleep(min(seconds, 1.0))
        wait = min(2 * wait, LONGEST_WAIT)
