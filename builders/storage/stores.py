"""The differences between stores: options of the clients, times in listings, and advice after an error."""

from datetime import UTC, datetime
from typing import Any

from builders.errors import first_line, missing_extra
from builders.storage.retry import http_status, is_offline, is_transient

NUM_ATTEMPTS = 12
NUM_ATTEMPTS_OF_CLIENTS = {"hf": 3, "s3": 3}
"""Fewer attempts for stores whose own client retries, too."""
SECONDS_TO_CONNECT, SECONDS_WITHOUT_BYTES = 15, 30
"""Seconds after which a connection over HTTP counts as stalled; the other clients have limits of their own."""
READ_OPTIONS: dict[str, dict[str, Any]] = {"hf": {"cache_type": "none"}}
"""HfFileSystem reads 5 MB ahead by default; every read here requests exactly the bytes that it needs."""
TIMES = ("uploaded_at", "LastModified", "last_modified", "updated", "mtime", "created")
"""Names that stores give to the time in a listing at which a file was last written."""


def time_of(info: dict[str, Any]) -> datetime | None:
    """Returns when a file was last written, from its entry in a listing; None if the entry does not say."""
    found = next((info[name] for name in TIMES if info.get(name)), None)
    if isinstance(found, int | float):
        return datetime.fromtimestamp(found, UTC)
    return found if isinstance(found, datetime) else None


def client_options(protocol: str) -> dict[str, Any]:
    """Returns options for a file system, in addition to those of the user's own fsspec configuration."""
    if protocol not in ("http", "https"):
        return {}
    try:
        import aiohttp
    except ModuleNotFoundError:
        raise missing_extra("aiohttp", "http") from None
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=SECONDS_TO_CONNECT, sock_read=SECONDS_WITHOUT_BYTES)
    return {"client_kwargs": {"timeout": timeout}}


def advice(error: Exception) -> str:
    """Returns the end of a sentence that says what went wrong in a store and what the user can do."""
    status, kind = http_status(error), type(error).__name__
    if status == 401 or "Credentials" in kind:
        return "the store needs valid credentials; log in, or set them"
    if status == 403 or isinstance(error, PermissionError):
        return "the store denies access (403); check the name and your permissions"
    if is_offline(error):
        return "HF_HUB_OFFLINE is set; unset it"
    if is_transient(error):
        return f"every attempt failed, the last one with {kind}: {first_line(error)}; run the command again to continue"
    return f"{kind}: {first_line(error)}; check the URL"
