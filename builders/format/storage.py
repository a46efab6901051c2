"""Files under one root, on a disk or in any fsspec store: http(s)://, s3://, hf://datasets/…, hf://buckets/…, …

Invariant: a name is either absent or holds a whole file. Local files are written beside their name and renamed onto it;
object stores get them in one put. What a network broke is tried again; what fails for good is told with its URL.
"""

import contextlib
import errno
import fcntl
import hashlib
import io
import os
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar, cast

import fsspec
import fsspec.asyn
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from builders.format.errors import UnreachableError, UserError, missing_extra
from builders.format.retrying import http_status, is_of_the_network, is_offline, is_transient, retrying

Argument = TypeVar("Argument")
Result = TypeVar("Result")

NUM_ATTEMPTS = 12
NUM_ATTEMPTS_OF_CLIENTS = {"hf": 3, "s3": 3}
"""Fewer where the store's own client tries again, too."""
NUM_READERS = 16
"""Small files that are read at once; an object store takes its time over each."""
CHUNK_BYTES = 32 * 1024 * 1024
"""Of a large file that is fetched; what breaks off is fetched again from the last chunk's end."""
BLOCK_BYTES = 1024 * 1024
"""Read ahead in files that are read in order."""
RANGES_AT_ONCE = 64
"""Ranges that are asked for at the same time; over http each takes a connection of its own."""
SECONDS_TO_CONNECT, SECONDS_WITHOUT_BYTES = 15, 30
"""After which a connection over http counts as stalled; the other clients have limits of their own."""


class Storage:
    """A directory or URL as a flat set of "/"-separated names."""

    def __init__(self, root: str | Path, num_attempts: int | None = None) -> None:
        protocol = str(root).partition("://")[0] if "://" in str(root) else "file"
        try:
            self._fs, self.root = fsspec.core.url_to_fs(str(root), **_options(protocol))
        except (ImportError, ValueError) as error:
            raise UserError(f"cannot open '{root}': {error}") from None
        self.is_local = isinstance(self._fs, LocalFileSystem)
        self._num_attempts = num_attempts or NUM_ATTEMPTS_OF_CLIENTS.get(protocol, NUM_ATTEMPTS)
        self._may_lack_ranges = protocol in ("http", "https")
        self._is_fixed = protocol == "hf" and bool(re.search("@[0-9a-f]{40}(/|$)", self.root))
        # HfFileSystem's files read five megabytes ahead, which is no use to who knows what he wants.
        self._read_options = {"cache_type": "none"} if protocol == "hf" else {}
        self._of_threads: dict[int, AbstractFileSystem] | None = {} if protocol == "hf" and not self._is_fixed else None

    @property
    def fs(self) -> AbstractFileSystem:
        """The file system; of the Hub each thread's own, for its listings must change in one thread alone."""
        if self._of_threads is None:
            return self._fs
        thread = threading.get_ident()
        if thread not in self._of_threads:
            own = type(self._fs)(*self._fs.storage_args, **self._fs.storage_options, skip_instance_cache=True)
            self._of_threads[thread] = own
        return self._of_threads[thread]

    def path(self, name: str) -> str:
        """The name as the file system calls it."""
        if name.startswith("/") or ".." in PurePosixPath(name).parts:
            raise UserError(f"'{name}' leads out of '{self.root}'")
        return f"{self.root.rstrip('/')}/{name}"

    def url(self, name: str) -> str:
        """The name as a user would write it."""
        path = self.path(name)
        return path if self.is_local else re.sub("//[^/@]*@", "//", str(self.fs.unstrip_protocol(path)))

    def exists(self, name: str) -> bool:
        self._look_again()
        try:
            self._call(name, self.fs.info, self.path(name))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def size(self, name: str) -> int:
        """Bytes of the file.

        Raises:
            FileNotFoundError: there is none.
        """
        self._look_again()
        return int(self._call(name, self.fs.info, self.path(name))["size"])

    def each(
        self, call: Callable[[Argument], Result], arguments: Iterable[Argument], *, also_on_disk: bool = False
    ) -> list[Result]:
        """What a small request answers for each of many arguments: some at once. On a disk one after another, unless the call
        is long enough to gain by threads, as reading Parquet is."""
        if self.is_local and not also_on_disk:
            return [call(argument) for argument in arguments]

        def ask(argument: Argument) -> Result:
            self._look_again()  # of each thread's own listings
            return call(argument)

        with ThreadPoolExecutor(NUM_READERS) as pool:
            return list(pool.map(ask, arguments))

    def names(self, folder: str) -> list[str]:
        """Names of all files below a folder, sorted; none where there is no such folder."""
        self._look_again()
        with contextlib.suppress(FileNotFoundError):
            start = len(self.root.rstrip("/")) + 1
            if self.is_local:  # many times as quick as fsspec
                found: list[str] = []
                for path, _, names in os.walk(self.path(folder).rstrip("/")):
                    prefix = f"{path}/"[start:]
                    found += [prefix + name for name in names]
                return sorted(found)
            return sorted(path[start:] for path in self._call(folder, self.fs.find, self.path(folder)))
        return []

    def times(self, folder: str) -> dict[str, datetime | None]:
        """When each file in a folder and those in it was last written, in one listing; None where the store does not say."""
        self._look_again()
        with contextlib.suppress(FileNotFoundError):
            start = len(self.root.rstrip("/")) + 1
            found = self._call(folder, self.fs.find, self.path(folder), detail=True)
            return {path[start:]: _time_of(info) for path, info in sorted(found.items())}
        return {}

    def sizes(self) -> dict[str, int]:
        """Bytes of every file, by its name, in one listing."""
        self._look_again()
        with contextlib.suppress(FileNotFoundError):
            start = len(self.root.rstrip("/")) + 1
            found = self._call("", self.fs.find, self.root, detail=True)
            return {path[start:]: int(info["size"]) for path, info in sorted(found.items())}
        return {}

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """The bytes [start, end) of a file, all of them by default.

        Raises:
            FileNotFoundError: there is no such file.
            UserError: the store fails for good, or gives less than was asked for.
        """
        content = self._read_at_least(name, start, end)
        if start is None or end is None or self.is_local:
            return content
        return content[start:end] if len(content) > end - start else content

    def has_ranges(self, name: str) -> bool:
        """Whether the server sends parts of files, as this one; a plain web server may send the whole file instead.

        False, too, where the file cannot be had; nothing of it is read.
        """
        if not self._may_lack_ranges:
            return True
        try:
            return bool(fsspec.asyn.sync(self.fs.loop, _has_ranges, self.fs, self.path(name)))
        except Exception:  # of any kind that the store has; whoever reads the file will say what is wrong
            return False

    def read_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes | None]:
        """The bytes [start, end) of each (name, start, end), asked for together; None for one that did not come.

        What did not come may still come when it is asked for again, by `read`.
        """
        if not (ranges and self.fs.async_impl):
            return self.each(self._read_range_or_none, ranges)
        names, starts, ends = ([*column] for column in zip(*ranges, strict=True))
        found = self.fs.cat_ranges(
            [self.path(name) for name in names], starts, ends, on_error="return", batch_size=RANGES_AT_ONCE
        )
        return [None if isinstance(content, BaseException) else bytes(content) for content in found]

    def _read_range_or_none(self, asked: tuple[str, int, int]) -> bytes | None:
        try:
            return self.read(*asked)
        except (OSError, UserError):
            return None

    def download(self, name: str, target: Path, num_bytes: int) -> str:
        """Writes the first `num_bytes` of a file, which is all of it, into a local one that is there; their sha256.

        Raises:
            UserError: see `read`, or the disk is full.
        """
        sha256 = hashlib.sha256()
        with target.open("r+b") as file:
            place = 0
            while place < num_bytes:
                end = min(place + CHUNK_BYTES, num_bytes)
                try:
                    content = self._read_at_least(name, place, end)
                except FileNotFoundError:
                    raise UserError(f"{self.url(name)} is not there; run 'fakeit-build verify'") from None
                if len(content) > end - place:  # a server that knows no ranges sent everything
                    content = content[place:num_bytes]
                sha256.update(content)
                place += len(content)
                try:
                    file.write(content)
                    file.flush()
                    if place == num_bytes:
                        os.fsync(file.fileno())
                except OSError as error:
                    raise UserError(
                        f"cannot write '{target}': {error.strerror}; make room or choose another cache"
                    ) from None
        return sha256.hexdigest()

    def _read_at_least(self, name: str, start: int | None, end: int | None) -> bytes:
        """The bytes [start, end), or all of the file where the server knows no ranges."""

        def read() -> bytes:
            content = bytes(self.fs.cat_file(self.path(name), start=start, end=end, **self._read_options))
            if start is not None and end is not None and len(content) < end - start and not self.is_local:
                raise EOFError(f"{len(content)} bytes came of {end - start}")
            return content

        return self._call(name, read)

    def open(self, name: str) -> BinaryIO:
        """A file to be read in order, or here and there.

        Raises:
            FileNotFoundError: there is no such file.
        """
        if self.is_local:
            return open(self.path(name), "rb")
        return cast(BinaryIO, io.BufferedReader(_Ranges(self, name, self.size(name)), BLOCK_BYTES))

    def write(self, name: str, content: bytes) -> None:
        """Puts a whole small file."""
        path = self.path(name)
        if not self.is_local:
            self._call(name, self.fs.pipe_file, path, content)
            return
        for is_last in (False, False, True):
            temporary = self._temporary(path)
            try:
                temporary.write_bytes(content)
                os.replace(temporary, path)
                return
            except FileNotFoundError:  # another run found the folder empty, and removed it
                if is_last:
                    raise
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    def create(self, name: str, content: bytes) -> bool:
        """Puts a whole small file where there is none; False where there is one.

        Of two that try at once, one succeeds, on disks and in stores that can write on condition (S3); in others both may.
        """
        path = self.path(name)
        if not self.is_local:
            return self._create_remote(name, path, content)
        temporary = self._temporary(f"{path}-{threading.get_ident()}")
        try:
            temporary.write_bytes(content)
            os.link(temporary, path)
        except FileNotFoundError:  # another run found the folder empty, and removed it
            self.write(name, content)
        except FileExistsError:
            return False
        except OSError as error:  # a file system without links
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
                raise
            if os.path.exists(path):
                return False
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def _create_remote(self, name: str, path: str, content: bytes) -> bool:
        if self.exists(name):
            return False
        try:
            self._call(name, self.fs.pipe_file, path, content, mode="create")
        except FileExistsError:
            return False
        except UserError as error:
            if "ConditionalRequestConflict" in str(error):  # another one's put was under way
                return False
            if "NotImplemented" not in str(error):
                raise
            self.write(name, content)  # a store without conditional puts
        return True

    def put(self, source: Path, name: str) -> None:
        """Takes over a finished local file, which `scratch` named."""
        if self.is_local:
            os.replace(source, self.path(name))
        else:
            self.upload(source, name)
            source.unlink()

    def upload(self, source: Path, name: str) -> None:
        """Puts a local file whole, and keeps it."""
        if not self.is_local:
            self._call(name, self.fs.put_file, str(source), self.path(name))
            return
        scratch = self.scratch(name)
        try:
            shutil.copyfile(source, scratch)
            os.replace(scratch, self.path(name))
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise

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
            # cp_file, for copy first asks whether the target is a folder, which costs requests, and fails where one appears
            self._call(source, self.fs.cp_file, self.path(source), self.path(target))
            self.remove(source)

    def remove(self, name: str) -> None:
        """Removes a file if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._call(name, self.fs.rm_file, self.path(name))

    def remove_all(self, names: list[str]) -> None:
        """Removes files, of an object store many at a time where it can."""
        if names and self.fs.async_impl:
            with contextlib.suppress(FileNotFoundError):  # some went meanwhile, and the store may have stopped there
                self._call(names[0], self.fs.rm, [self.path(name) for name in names])
                return
        for name in names:
            self.remove(name)

    def remove_folder(self, folder: str) -> None:
        """Removes a folder and all that is in it, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._call(folder, self.fs.rm, self.path(folder), recursive=True)

    def remove_empty_folders(self, folder: str) -> None:
        """Removes a folder and those in it, as far as no file is there; object stores have none."""
        if self.is_local:
            for path, _, _ in os.walk(self.path(folder), topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(path)

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

    def _call(self, name: str, call: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
        """call(*arguments, **options); on remote stores tried again, and its failure told.

        Raises:
            FileNotFoundError: the store says that there is no such file.
            UserError: anything else that the store says.
        """
        if self.is_local:
            return call(*arguments, **options)
        try:
            return retrying(call, *arguments, num_attempts=self._num_attempts, **options)
        except UserError:
            raise
        except Exception as error:  # each store has exceptions of its own
            if http_status(error) == 404 or isinstance(error, FileNotFoundError):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.url(name)) from None
            if not (isinstance(error, (OSError, NotImplementedError)) or is_of_the_network(error)):
                raise  # a mistake of ours
            if isinstance(error, FileExistsError):
                raise  # `create` asked for that
            if isinstance(error, NotImplementedError):
                raise UserError(f"{self.url(name)}: this store cannot be written to; choose another one") from None
            kind = UnreachableError if is_transient(error) or is_offline(error) else UserError
            raise kind(f"{self.url(name)}: {_advice(error)}") from None

    def _look_again(self) -> None:
        """Forgets listings, for others may write to the store, too."""
        if not self.is_local and not self._is_fixed:
            self.fs.invalidate_cache()

    def _temporary(self, path: str) -> Path:
        folder, name = os.path.split(path)
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to '{folder}': {error.strerror}; choose another output") from None
        return Path(folder) / f".{name}.{socket.gethostname()}-{os.getpid()}.tmp"


async def _has_ranges(fs: Any, url: str) -> bool:
    session = await fs.set_session()
    headers = {**fs.kwargs.get("headers", {}), "Range": "bytes=0-0"}
    async with session.get(fs.encode_url(url), **{**fs.kwargs, "headers": headers}) as response:
        return bool(response.status == 206)


class _Ranges(io.RawIOBase):
    """A remote file as ranges of it, each tried again where the network breaks it."""

    def __init__(self, storage: Storage, name: str, num_bytes: int) -> None:
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


def _time_of(info: dict[str, Any]) -> datetime | None:
    """Of a listing: each store has a name of its own for it."""
    found = next((info[name] for name in ("mtime", "LastModified", "last_modified", "updated") if info.get(name)), None)
    if isinstance(found, int | float):
        return datetime.fromtimestamp(found, UTC)
    return found if isinstance(found, datetime) else None


def _options(protocol: str) -> dict[str, Any]:
    """Options of a file system beside those that the user's own configuration of fsspec gives."""
    if protocol not in ("http", "https"):
        return {}
    try:
        import aiohttp
    except ModuleNotFoundError:
        raise missing_extra("aiohttp", "http") from None
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=SECONDS_TO_CONNECT, sock_read=SECONDS_WITHOUT_BYTES)
    return {"client_kwargs": {"timeout": timeout}}


def _advice(error: Exception) -> str:
    status, kind = http_status(error), type(error).__name__
    if status == 401 or "Credentials" in kind:
        return "the store does not know you; log in, or set its credentials"
    if status == 403 or isinstance(error, PermissionError):
        return "the store does not let you (403); check the name and your rights"
    if is_offline(error):
        return "HF_HUB_OFFLINE is set; unset it"
    reason = (str(error).strip().splitlines() or [kind])[0]
    if is_transient(error):
        return f"tried again and again, it failed with {kind}: {reason}; run again, which goes on where it stopped"
    return f"{kind}: {reason}; check the URL"
