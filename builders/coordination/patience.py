"""Retries calls while a store does not answer, for as long as the user allows."""

import time
from collections.abc import Callable
from typing import TypeVar

from builders.errors import UnreachableError

Result = TypeVar("Result")

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds between two retries, at first and at most. The storage's own retries come in addition."""


def retry_unreachable(
    call: Callable[[], Result],
    patience: float,
    on_wait: Callable[[], object] = lambda: None,
    is_over: Callable[[], bool] = lambda: False,
) -> Result:
    """Returns `call()`, with retries for up to `patience` seconds while a store does not answer.

    Args:
        call: Function that may be called again after it failed halfway.
        patience: Seconds for which to retry.
        on_wait: Called before each pause.
        is_over: Checked every second of a pause; True ends the retries.

    Raises:
        UnreachableError: the store still does not answer after `patience` seconds, or when `is_over` is true.
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
