"""Retries requests that a network broke: statuses 408, 429 and 5xx, and connections that drop or stall.

Any other error is final. The exceptions depend on the store. Libraries are recognized by the names of their packages,
so that none is imported here.
"""

import errno
from collections.abc import Callable
from typing import Any, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

Result = TypeVar("Result")

MAX_WAIT = 8.0
"""Upper limit of the growing pauses in seconds. They are random, so that a node's workers do not retry together."""
MAX_RETRY_AFTER = 60.0
"""Upper limit in seconds for a pause that a server requests."""
NETWORK_PACKAGES = {
    "aiohttp",
    "botocore",
    "aiobotocore",
    "httpcore",
    "httpcore2",
    "httpx",
    "httpx2",
    "urllib3",
    "requests",
}
FINAL_ERRORS = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
FINAL_NUMBERS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG}
OFFLINE = "OfflineModeIsEnabled"
"""Name of the exception that huggingface_hub raises if HF_HUB_OFFLINE is set."""
FINAL_NAMES = {
    OFFLINE, "InvalidURL", "NonHttpUrlClientError", "UnsupportedProtocol", "SSLCertVerificationError",
    "ClientConnectorCertificateError", "NoCredentialsError", "PartialCredentialsError", "ProfileNotFound",
    "NoRegionError", "ParamValidationError", "InvalidEndpointConfigurationError",
}  # fmt: skip
"""Names of exceptions that are final, although their libraries derive them from network errors."""

_wait = wait_random_exponential(multiplier=0.2, max=MAX_WAIT)


def retry(call: Callable[..., Result], *arguments: Any, num_attempts: int, **options: Any) -> Result:
    """Returns call(*arguments, **options), which is retried with growing pauses if the network is to blame.

    Raises:
        The last error, if it is final or no attempt is left.
    """
    attempts = Retrying(
        stop=stop_after_attempt(num_attempts),
        wait=_pause,
        retry=retry_if_exception(is_transient),
        reraise=True,
    )
    return attempts(call, *arguments, **options)


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    status = http_status(error)
    if status is not None:
        return status in (408, 429) or status >= 500
    names = {kind.__name__ for cause in (error, error.__cause__) if cause for kind in type(cause).__mro__}
    if isinstance(error, FINAL_ERRORS) or names & FINAL_NAMES:
        return False
    if isinstance(error, OSError):
        return error.errno not in FINAL_NUMBERS
    return is_of_the_network(error)


def is_offline(error: BaseException) -> bool:
    """Whether the user has switched off the network."""
    return any(kind.__name__ == OFFLINE for kind in type(error).__mro__)


def is_of_the_network(error: BaseException) -> bool:
    """Whether an exception is about a server or the connection to it, rather than about a mistake in the code."""
    is_known = isinstance(error, (TimeoutError, EOFError)) or http_status(error) is not None
    return is_known or any(kind.__module__.partition(".")[0] in NETWORK_PACKAGES for kind in type(error).__mro__)


def http_status(error: BaseException) -> int | None:
    """Returns the HTTP status in an exception of aiohttp, httpx, huggingface_hub or botocore; None if it has none."""
    response = getattr(error, "response", None)
    found = getattr(error, "status", None) or getattr(response, "status_code", None)
    if isinstance(response, dict):
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    # s3fs wraps botocore's exception in an OSError.
    if found is None and isinstance(error.__cause__, Exception):
        return http_status(error.__cause__)
    return found if isinstance(found, int) else None


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    headers = getattr(error, "headers", None) or getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        requested = float(headers.get("Retry-After", 0))
    except (AttributeError, TypeError, ValueError):
        # The header is a date, or the headers are not a mapping.
        requested = 0.0
    return max(_wait(state), min(requested, MAX_RETRY_AFTER))
