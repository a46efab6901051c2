"""A file of a remote store as a file object, read by byte ranges."""

import io
from typing import Any, Protocol


class Ranged(Protocol):
    """A storage that can read byte ranges."""

    def read(self, name: str, start: int, end: int) -> bytes: ...


class RemoteFile(io.RawIOBase):
    """A read-only file object over a remote file. It reads ranges, which are retried if the network breaks them."""

    def __init__(self, storage: Ranged, name: str, num_bytes: int) -> None:
        self._storage, self._name, self._num_bytes = storage, name, num_bytes
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._num_bytes}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        end = min(self._position + len(buffer), self._num_bytes)
        if end <= self._position:
            return 0
        content = self._storage.read(self._name, self._position, end)
        buffer[: len(content)] = content
        self._position = end
        return len(content)
