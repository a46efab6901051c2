"""Files below one root, on a disk or in any fsspec store: http(s)://, s3://, hf://datasets/…, hf://buckets/…, …

    storage = open_storage("s3://bucket/clone")
    storage.write("clone.json", content)

Invariant: a name is either absent or holds a whole file. The two implementations are in `local.py` and `remote.py`.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class Storage(Protocol):
    """A directory or URL as a flat set of "/"-separated names.

    Methods raise FileNotFoundError if a file does not exist. A remote store that fails for good raises UserError, and
    one that does not answer raises UnreachableError.
    """

    root: str
    is_local: bool

    def path(self, name: str) -> str:
        """Returns the path of a name in the file system."""

    def url(self, name: str) -> str:
        """Returns the path or URL of a name as a user would write it."""

    def exists(self, name: str) -> bool: ...

    def size(self, name: str) -> int:
        """Returns the size of a file in bytes."""

    def names(self, folder: str) -> list[str]:
        """Returns the sorted names of all files below a folder; none if there is no such folder."""

    def times(self, folder: str) -> dict[str, datetime | None]:
        """Returns when each file below a folder was last written, in one listing; None if the store does not say."""

    def sizes(self) -> dict[str, int]:
        """Returns the size of every file in bytes, by name, in one listing."""

    def each(
        self, call: Callable[[Argument], Result], arguments: Iterable[Argument], *, also_on_disk: bool = False
    ) -> list[Result]:
        """Returns [call(argument), …].

        A remote store runs several calls at once. A disk does so only with `also_on_disk`, for calls that gain from
        threads.
        """

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """Returns the bytes [start, end) of a file; by default all of them."""

    def has_ranges(self, name: str) -> bool:
        """Whether the server can send a range of a file; a plain web server may send the whole file instead."""

    def read_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes | None]:
        """Returns the bytes [start, end) of each (name, start, end), requested together; None for one that fails."""

    def open(self, name: str) -> BinaryIO:
        """Opens a file for reading, in order or at any position."""

    def download(self, name: str, target: Path, num_bytes: int) -> str:
        """Writes a file of `num_bytes` bytes into an existing local one; returns its sha256."""

    def write(self, name: str, content: bytes) -> None:
        """Writes a small file in one piece."""

    def put(self, source: Path, name: str) -> None:
        """Moves a finished local file, which `scratch` named, to its name. The local file survives a failure."""

    def upload(self, source: Path, name: str) -> None:
        """Copies a local file to a name, whole, and keeps the local file."""

    def scratch(self, name: str, folder: str = "") -> Path:
        """Returns where to write a large file before `put`: beside its name; for a remote store in a local folder."""

    def move(self, source: str, target: str) -> None:
        """Renames a file. An object store copies the whole file, and then removes the old name."""

    def remove(self, name: str) -> None:
        """Removes a file if it exists."""

    def remove_all(self, names: list[str]) -> None:
        """Removes files, many with one request if the store can do that."""

    def remove_folder(self, folder: str) -> None:
        """Removes a folder and everything in it, if it exists."""

    def remove_empty_folders(self, folder: str) -> None:
        """Removes a folder of a disk and its subfolders, except those that hold files."""

    def remove_temporaries(self) -> None:
        """Removes temporary files that killed writers left beside finished files."""


def open_storage(root: str | Path, num_attempts: int | None = None) -> Storage:
    """Opens the storage at a directory or URL.

    Args:
        root: A directory, or a URL that fsspec knows.
        num_attempts: Number of times that a request to a remote store is sent before it fails. The default depends on
            the store.

    Raises:
        UserError: the URL's protocol is unknown, or a package that it needs is not installed.
    """
    if "://" in str(root) and not str(root).startswith(("file://", "local://")):
        from builders.storage.remote import RemoteStorage

        return RemoteStorage(str(root), num_attempts)
    from builders.storage.local import LocalStorage

    return LocalStorage(str(root).partition("://")[2] or str(root))
