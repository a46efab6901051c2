import errno

import pytest

from builders.storage import retry as module
from builders.storage.retry import http_status, is_transient, retry


class AnswerError(Exception):
    def __init__(self, status: int) -> None:
        self.status = status


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_wait", lambda state: 0.0)


def failing(*errors: Exception) -> list[Exception]:
    return list(errors)


def call(errors: list[Exception]) -> str:
    if errors:
        raise errors.pop(0)
    return "done"


def test_retry__network_errors_are_retried() -> None:
    errors = failing(AnswerError(503), AnswerError(429), ConnectionResetError(), TimeoutError(), EOFError("short"))
    assert retry(call, errors, num_attempts=6) == "done"


@pytest.mark.parametrize(
    "error",
    [
        AnswerError(404),
        AnswerError(403),
        FileNotFoundError(),
        PermissionError(),
        ValueError(),
        OSError(errno.ENOSPC, "full"),
    ],
)
def test_retry__other_errors_are_final(error: Exception) -> None:
    errors = failing(error, error)
    with pytest.raises(type(error)):
        retry(call, errors, num_attempts=6)
    assert len(errors) == 1 and not is_transient(error)


def test_retry__the_last_error_is_raised() -> None:
    errors = failing(*(AnswerError(500 + n) for n in range(9)))
    with pytest.raises(AnswerError) as message:
        retry(call, errors, num_attempts=3)
    assert message.value.status == 502 and len(errors) == 6


def test_retry__statuses_of_wrapped_exceptions_are_found() -> None:
    from aiohttp import ClientPayloadError
    from botocore.exceptions import ClientError

    hidden = OSError("busy")
    hidden.__cause__ = ClientError({"ResponseMetadata": {"HTTPStatusCode": 503}}, "GetObject")  # type: ignore[typeddict-item]
    assert http_status(hidden) == 503 and is_transient(hidden)
    hidden.__cause__ = ClientError({"ResponseMetadata": {"HTTPStatusCode": 403}}, "GetObject")  # type: ignore[typeddict-item]
    assert not is_transient(hidden) and is_transient(ClientPayloadError("cut"))


def test_retry__retry_after_is_respected_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", slept.append)
    patient = AnswerError(429)
    patient.headers = {"Retry-After": "7"}  # type: ignore[attr-defined]
    endless = AnswerError(429)
    endless.headers = {"Retry-After": "86400"}  # type: ignore[attr-defined]
    assert retry(call, failing(patient, endless), num_attempts=6) == "done"
    assert slept == [7.0, module.MAX_RETRY_AFTER]
