"""Caches shards of remote clones on this machine's disk. All processes that name the same folder share the cache.

Invariants: the files of the folder never add up to more than `max_bytes`; files that are being fetched count in full.
The name of a file is the sha256 of its bytes. If several processes need a file, one of them fetches it.

The least recently used files are evicted first, but files in use are never evicted. If they fill the cache, other files
are read by ranges, past the cache. A file is opened for each read and closed after it, so an evicted file leaves the
disk at once.
"""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from builders.errors import UserError
from builders.format.manifest import FileEntry
from builders.storage.base import Storage
from builders.storage.cache_folder import cache_folder

PARTIAL = ".part"
DEFAULT_BYTES = 64 * 2**30
NUM_LOCKS = 256
ROOM = "room"
"""Name of the lock that is held while files are added, removed and counted."""
FILE = re.compile(r"[0-9a-f]{64}(\.part)?")
"""Names of the cache's own files; other files in the folder are never touched."""


def default_cache() -> "ShardCache":
    """Returns the cache that is used unless the user names another."""
    return ShardCache(cache_folder(), DEFAULT_BYTES)


@dataclass(frozen=True)
class ShardCache:
    folder: Path
    max_bytes: int
    seconds_in_use: float = 5.0
    """Seconds after a read during which a file counts as in use, and is not evicted."""

    def has(self, file: FileEntry) -> bool:
        """Whether the cache holds a file. One of another size, cut short by a crash, does not count."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return self._path(file).stat().st_size == file.num_bytes
        return False

    def read(self, storage: Storage, file: FileEntry, start: int, end: int) -> bytes | None:
        """Returns the bytes [start, end) of a file, which is fetched whole if it is absent; None without room for it.

        Raises:
            UserError: the file cannot be fetched, or it had the wrong sha256 twice.
        """
        while True:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError), self._path(file).open("rb") as content:
                if os.fstat(content.fileno()).st_size == file.num_bytes:
                    # Marks the file as used now.
                    os.utime(content.fileno())
                    return os.pread(content.fileno(), end - start, start)
            if not self.fetch(storage, file):
                return None

    def fetch(self, storage: Storage, file: FileEntry, *, wait: bool = True) -> bool:
        """Fetches a file unless the cache holds it; returns whether the cache holds it now.

        Returns False if files in use take all room. Without `wait`, also returns False if another process or thread is
        fetching the file.

        Raises:
            UserError: see `read`.
        """
        if self._touch(file):
            return True
        try:
            with self._lock(_lock_name(file.sha256), wait=wait):
                return self._touch(file) or self._fetch(storage, file)
        except Timeout:
            return False

    def num_bytes(self) -> int:
        """Returns the size of the cache in bytes; files that are being fetched count in full."""
        with self._lock(ROOM):
            return sum(size for _, _, size in self._files())

    def _touch(self, file: FileEntry) -> bool:
        """Whether the cache holds a file; if so, marks it as used now."""
        is_here = self.has(file)
        if is_here:
            with contextlib.suppress(FileNotFoundError):
                os.utime(self._path(file))
        return is_here

    def _fetch(self, storage: Storage, file: FileEntry) -> bool:
        partial = self._path(file).with_suffix(PARTIAL)
        found = ""
        for _ in range(2):
            if not self._reserve(partial, file.num_bytes):
                return False
            try:
                found = storage.download(file.name, partial, file.num_bytes)
                if found == file.sha256:
                    with self._lock(ROOM):
                        os.replace(partial, self._path(file))
                    return True
            finally:
                partial.unlink(missing_ok=True)
        raise UserError(
            f"{storage.url(file.name)} was fetched twice and has sha256 {found[:16]}…, but clone.json says "
            f"{file.sha256[:16]}…; run 'fakeit-build verify', and push or make the clone again"
        )

    def _reserve(self, partial: Path, num_bytes: int) -> bool:
        """Reserves room for a file, and evicts others if needed. Returns False if there is not enough room.

        Files in use are never evicted: otherwise readers would keep evicting each other's files.
        """
        with self._lock(ROOM):
            files = [found for found in sorted(self._files()) if not self._clear_if_dead(found[1], partial)]
            free = self.max_bytes - sum(size for _, _, size in files)
            for used_at, path, size in files:
                if free < num_bytes and path.suffix != PARTIAL and time.time() - used_at > self.seconds_in_use:
                    path.unlink(missing_ok=True)
                    free += size
            if free < num_bytes:
                return False
            try:
                with partial.open("wb") as content:
                    content.truncate(num_bytes)
            except OSError as error:
                raise _unwritable(self.folder, error) from None
            return True

    def _clear_if_dead(self, path: Path, ours: Path) -> bool:
        """Deletes a partial file that nobody is fetching. `ours` is the file whose lock this process holds."""
        if path.suffix != PARTIAL:
            return False
        name = _lock_name(path.stem)
        try:
            if name != _lock_name(ours.stem):
                self._lock(name, wait=False).acquire().lock.release()
        except Timeout:
            return False
        path.unlink(missing_ok=True)
        return True

    def _files(self) -> Iterator[tuple[float, Path, int]]:
        """Yields the time of last use, the path and the size of each file of the cache."""
        for entry in os.scandir(self.folder):
            with contextlib.suppress(FileNotFoundError):
                if FILE.fullmatch(entry.name) and entry.is_file():
                    stat = entry.stat()
                    yield stat.st_mtime, Path(entry.path), stat.st_size

    def _path(self, file: FileEntry) -> Path:
        return self.folder / file.sha256

    def _lock(self, name: str, *, wait: bool = True) -> FileLock:
        folder = self.folder / "locks"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(self.folder, error) from None
        return FileLock(folder / f"{name}.lock", timeout=-1 if wait else 0)


def _lock_name(sha256: str) -> str:
    return f"{int(sha256[:8], 16) % NUM_LOCKS:03d}"


def _unwritable(folder: Path, error: OSError) -> UserError:
    return UserError(f"cannot write to the cache '{folder}': {error.strerror}; choose another one")
