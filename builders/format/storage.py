"""Files under one root, on a disk or in any fsspec store.

Invariant: a name is either absent or holds a whole file. Local files are written beside their name and renamed onto it;
object stores get them in one put.
"""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import fsspec
from fsspec.implementations.local import LocalFileSystem

from builders.format.errors import UserError


class Storage:
    """A directory or URL as a flat set of "/"-separated names."""

    def __init__(self, root: str | Path) -> None:
        try:
            self.fs, self.root = fsspec.core.url_to_fs(str(root))
        except (ImportError, ValueError) as error:
            raise UserError(f"cannot open '{root}': {error}") from None
        self.is_local = isinstance(self.fs, LocalFileSystem)

    def path(self, name: str) -> str:
        """The name as the file system calls it."""
        if name.startswith("/") or ".." in PurePosixPath(name).parts:
            raise UserError(f"'{name}' leads out of '{self.root}'")
        return f"{self.root.rstrip('/')}/{name}"

    def exists(self, name: str) -> bool:
        return bool(self.fs.exists(self.path(name)))

    def size(self, name: str) -> int:
        """Bytes of the file.

        Raises:
            FileNotFoundError: there is none.
        """
        return int(self.fs.size(self.path(name)))

    def names(self, folder: str) -> list[str]:
        """Names of all files below a folder, sorted; none where there is no such folder."""
        with contextlib.suppress(FileNotFoundError):
            start = len(self.root.rstrip("/")) + 1
            return sorted(path[start:] for path in self.fs.find(self.path(folder)))
        return []

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """The bytes [start, end) of a file, all of them by default."""
        return bytes(self.fs.cat_file(self.path(name), start=start, end=end))

    def write(self, name: str, content: bytes) -> None:
        """Puts a whole small file."""
        path = self.path(name)
        if not self.is_local:
            self.fs.pipe_file(path, content)
            return
        temporary = self._temporary(path)
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def put(self, source: Path, name: str) -> None:
        """Takes over a finished local file, which `scratch` named."""
        if self.is_local:
            os.replace(source, self.path(name))
        else:
            self.fs.put_file(str(source), self.path(name))
            source.unlink()

    def scratch(self, name: str) -> Path:
        """Where to write a large file before `put`: beside its name, or in the temporary directory for a remote store."""
        if self.is_local:
            return self._temporary(self.path(name))
        import tempfile

        return self._temporary(f"{tempfile.gettempdir()}/{PurePosixPath(name).name}")

    def move(self, source: str, target: str) -> None:
        """Renames a file; on object stores copies it whole, then removes the old name."""
        if self.is_local:
            os.makedirs(os.path.dirname(self.path(target)), exist_ok=True)
            os.replace(self.path(source), self.path(target))
        else:
            self.fs.mv(self.path(source), self.path(target))

    def remove(self, name: str) -> None:
        """Removes a file if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(self.path(name))

    def remove_folder(self, folder: str) -> None:
        """Removes a folder and all that is in it, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm(self.path(folder), recursive=True)

    def remove_temporaries(self) -> None:
        """Removes what writers that were killed left beside finished files."""
        for name in self.names("") if self.is_local else []:
            if PurePosixPath(name).name.startswith(".") and name.endswith(".tmp"):
                self.remove(name)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lets one process at a time in, on this machine and this disk; does nothing for remote stores."""
        if not self.is_local:
            yield
            return
        os.makedirs(self.root, exist_ok=True)
        descriptor = os.open(self.root, os.O_RDONLY)
        try:
            with contextlib.suppress(
                OSError
            ):  # some network disks cannot; two finalisers then repeat each other's work
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _temporary(self, path: str) -> Path:
        folder, name = os.path.split(path)
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to '{folder}': {error.strerror}; choose another output") from None
        return Path(folder) / f".{name}.{socket.gethostname()}-{os.getpid()}.tmp"
