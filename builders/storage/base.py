"""Files under one root, on a disk or in any fsspec store: http(s)://, s3://, hf://datasets/…, hf://buckets/…, …

    storage = open_storage("s3://bucket/clone")
    storage.write("clone.json", content)

Invariant: a name is either absent or holds a whole file. `local_storage.py` and `remote_storage.py` are the two kinds.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class Storage(Protocol):
    """A directory or URL as a flat set of "/"-separated names.

    Where there is no such file, methods raise FileNotFoundError; a remote store that fails for good raises UserError,
    one that does not answer UnreachableError.
    """

    root: str
    is_local: bool

    def path(self, name: str) -> str:
        """The name as the file system calls it."""

    def url(self, name: str) -> str:
        """The name as a user would write it."""

    def exists(self, name: str) -> bool: ...

    def size(self, name: str) -> int:
        """Bytes of a file."""

    def names(self, folder: str) -> list[str]:
        """Names of all files below a folder, sorted; none where there is no such folder."""

    def times(self, folder: str) -> dict[str, datetime | None]:
        """When the store says each file below a folder was last written, in one listing; None where it does not say."""

    def sizes(self) -> dict[str, int]:
        """Bytes of every file, by name, in one listing."""

    def each(
        self, call: Callable[[Argument], Result], arguments: Iterable[Argument], *, also_on_disk: bool = False
    ) -> list[Result]:
        """[call(argument), …], several at once in a remote store; on a disk only if the calls gain by threads."""

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """The bytes [start, end) of a file, all of them by default."""

    def has_ranges(self, name: str) -> bool:
        """Whether the server sends parts of a file; a plain web server may send the whole file instead."""

    def read_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes | None]:
        """The bytes [start, end) of each (name, start, end), asked for together; None for one that did not come."""

    def open(self, name: str) -> BinaryIO:
        """A file to be read in order, or here and there."""

    def download(self, name: str, target: Path, num_bytes: int) -> str:
        """Writes a file of `num_bytes` bytes into an existing local one; returns its sha256."""

    def write(self, name: str, content: bytes) -> None:
        """Puts a whole small file."""

    def put(self, source: Path, name: str) -> None:
        """Moves a finished local file, which `scratch` named, to its name; after a failure it is still there."""

    def upload(self, source: Path, name: str) -> None:
        """Puts a local file whole, and keeps it."""

    def scratch(self, name: str, folder: str = "") -> Path:
        """Where to write a large file before `put`: beside its name, or in a local folder for a remote store."""

    def move(self, source: str, target: str) -> None:
        """Renames a file; an object store copies it whole, then removes the old name."""

    def remove(self, name: str) -> None:
        """Removes a file if it is there."""

    def remove_all(self, names: list[str]) -> None:
        """Removes files, many at a time where the store can."""

    def remove_folder(self, folder: str) -> None:
        """Removes a folder and all that is in it, if it is there."""

    def remove_empty_folders(self, folder: str) -> None:
        """Removes a folder of a disk and those in it, as far as no file is there."""

    def remove_temporaries(self) -> None:
        """Removes what killed writers left beside finished files."""


def open_storage(root: str | Path, num_attempts: int | None = None) -> Storage:
    """The storage at a directory or URL.

    Args:
        root: A directory, or a URL that fsspec knows.
        num_attempts: How often a request to a remote store is sent, before it fails; by default it depends on the store.

    Raises:
        UserError: the URL's kind is unknown, or what it needs is not installed.
    """
    if "://" in str(root) and not str(root).startswith(("file://", "local://")):
        from builders.storage.remote import RemoteStorage

        return RemoteStorage(str(root), num_attempts)
    from builders.storage.local import LocalStorage

    return LocalStorage(str(root).partition("://")[2] or str(root))
