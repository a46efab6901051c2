"""A directory on a disk as a storage.

Files are written beside their name and then renamed onto it, so a name always holds a whole file.
"""

import contextlib
import hashlib
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypeVar

from builders.errors import UserError

Argument = TypeVar("Argument")
Result = TypeVar("Result")

NUM_READERS = 16
"""Number of threads in `each`, for calls that release the interpreter's lock, such as reading Parquet."""


class LocalStorage:
    is_local = True

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(os.path.expanduser(root))

    def path(self, name: str) -> str:
        return checked_path(self.root, name)

    url = path

    def exists(self, name: str) -> bool:
        return os.path.exists(self.path(name))

    def size(self, name: str) -> int:
        return os.stat(self.path(name)).st_size

    def names(self, folder: str) -> list[str]:
        start = len(self.root.rstrip("/")) + 1
        found: list[str] = []
        for path, _, names in os.walk(self.path(folder).rstrip("/")):
            prefix = f"{path}/"[start:]
            found += [prefix + name for name in names]
        return sorted(found)

    def times(self, folder: str) -> dict[str, datetime | None]:
        return {name: datetime.fromtimestamp(found.st_mtime, UTC) for name, found in self._stats(folder)}

    def sizes(self) -> dict[str, int]:
        return {name: found.st_size for name, found in self._stats("")}

    def each(
        self, call: Callable[[Argument], Result], arguments: Iterable[Argument], *, also_on_disk: bool = False
    ) -> list[Result]:
        if not also_on_disk:
            return [call(argument) for argument in arguments]
        with ThreadPoolExecutor(NUM_READERS) as pool:
            return list(pool.map(call, arguments))

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        with self.open(name) as file:
            file.seek(start or 0)
            return file.read() if end is None else file.read(end - (start or 0))

    def has_ranges(self, name: str) -> bool:
        return True

    def read_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes | None]:
        return [self._read_or_none(*one) for one in ranges]

    def open(self, name: str) -> BinaryIO:
        return open(self.path(name), "rb")

    def download(self, name: str, target: Path, num_bytes: int) -> str:
        shutil.copyfile(self.path(name), target)
        with target.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def write(self, name: str, content: bytes) -> None:
        for is_last in (False, False, True):
            temporary = temporary_file(Path(f"{self.path(name)}-{threading.get_ident()}"))
            try:
                temporary.write_bytes(content)
                os.replace(temporary, self.path(name))
                return
            except FileNotFoundError:
                # Another run found the folder empty, and removed it.
                if is_last:
                    raise
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    def put(self, source: Path, name: str) -> None:
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        os.replace(source, self.path(name))

    def upload(self, source: Path, name: str) -> None:
        temporary = self.scratch(name)
        try:
            shutil.copyfile(source, temporary)
            os.replace(temporary, self.path(name))
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def scratch(self, name: str, folder: str = "") -> Path:
        return temporary_file(Path(self.path(name)))

    def move(self, source: str, target: str) -> None:
        self.put(Path(self.path(source)), target)

    def remove(self, name: str) -> None:
        Path(self.path(name)).unlink(missing_ok=True)

    def remove_all(self, names: list[str]) -> None:
        for name in names:
            self.remove(name)

    def remove_folder(self, folder: str) -> None:
        shutil.rmtree(self.path(folder), ignore_errors=True)

    def remove_empty_folders(self, folder: str) -> None:
        for path, _, _ in os.walk(self.path(folder), topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(path)

    def remove_temporaries(self) -> None:
        for name in self.names(""):
            if os.path.basename(name).startswith(".") and name.endswith(".tmp"):
                self.remove(name)

    def _stats(self, folder: str) -> Iterable[tuple[str, os.stat_result]]:
        for name in self.names(folder):
            try:
                yield name, os.stat(f"{self.root}/{name}")
            except FileNotFoundError:
                # Another process has removed the file since it was listed.
                continue

    def _read_or_none(self, name: str, start: int, end: int) -> bytes | None:
        try:
            return self.read(name, start, end)
        except OSError:
            return None


def temporary_file(path: Path) -> Path:
    """Returns the hidden name beside `path` under which this process writes the file. Makes the folder.

    Raises:
        UserError: the folder cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to '{path.parent}': {error.strerror}; choose another output") from None
    return path.parent / f".{path.name}.{socket.gethostname()}-{os.getpid()}.tmp"


def is_dead_temporary(path: Path) -> bool:
    """Whether a file is a temporary one of a process of this machine that no longer exists."""
    host, _, pid = path.name.removesuffix(".tmp").rpartition("-")
    is_ours = path.name.endswith(".tmp") and host.endswith(f".{socket.gethostname()}") and pid.isdecimal()
    return is_ours and not is_process(int(pid))


def is_process(pid: int) -> bool:
    """Whether a process of this machine exists; True if the system gives no answer."""
    # On Windows, signal 0 would end the process.
    if os.name == "nt":
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def checked_path(root: str, name: str) -> str:
    """Returns root/name.

    Raises:
        UserError: the name leads out of the root.
    """
    if name.startswith("/") or ".." in PurePosixPath(name).parts:
        raise UserError(f"'{name}' leads out of '{root}'")
    return f"{root.rstrip('/')}/{name}"
