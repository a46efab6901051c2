"""What differs from store to store: options of the clients, times in listings, and advice after an error."""

from datetime import UTC, datetime
from typing import Any

from builders.errors import first_line, missing_extra
from builders.storage.retry import http_status, is_offline, is_transient

NUM_ATTEMPTS = 12
NUM_ATTEMPTS_OF_CLIENTS = {"hf": 3, "s3": 3}
"""Fewer where the store's own client tries again, too."""
SECONDS_TO_CONNECT, SECONDS_WITHOUT_BYTES = 15, 30
"""After which a connection over http counts as stalled; the other clients have limits of their own."""
READ_OPTIONS: dict[str, dict[str, Any]] = {"hf": {"cache_type": "none"}}
"""HfFileSystem's files read 5 MB ahead by default; every read here requests exactly the bytes it needs."""
TIMES = ("uploaded_at", "LastModified", "last_modified", "updated", "mtime", "created")
"""What stores call the time in a listing at which a file was last written."""


def time_of(info: dict[str, Any]) -> datetime | None:
    found = next((info[name] for name in TIMES if info.get(name)), None)
    if isinstance(found, int | float):
        return datetime.fromtimestamp(found, UTC)
    return found if isinstance(found, datetime) else None


def client_options(protocol: str) -> dict[str, Any]:
    """Options of a file system beside those that the user's own configuration of fsspec gives."""
    if protocol not in ("http", "https"):
        return {}
    try:
        import aiohttp
    except ModuleNotFoundError:
        raise missing_extra("aiohttp", "http") from None
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=SECONDS_TO_CONNECT, sock_read=SECONDS_WITHOUT_BYTES)
    return {"client_kwargs": {"timeout": timeout}}


def advice(error: Exception) -> str:
    status, kind = http_status(error), type(error).__name__
    if status == 401 or "Credentials" in kind:
        return "the store does not know you; log in, or set its credentials"
    if status == 403 or isinstance(error, PermissionError):
        return "the store does not let you (403); check the name and your rights"
    if is_offline(error):
        return "HF_HUB_OFFLINE is set; unset it"
    if is_transient(error):
        return f"tried again and again, it failed with {kind}: {first_line(error)}; run again, which goes on where it stopped"
    return f"{kind}: {first_line(error)}; check the URL"
