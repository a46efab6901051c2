"""A URL of any fsspec store as a storage.

A file is uploaded whole, in one put. Requests that the network broke are retried.
"""

import contextlib
import errno
import hashlib
import io
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar, cast

import fsspec
import fsspec.asyn
from fsspec import AbstractFileSystem

from builders.errors import ReadableError, UnreachableError, UserError
from builders.storage.local import checked_path, temporary_file
from builders.storage.remote_file import RemoteFile
from builders.storage.retry import http_status, is_of_the_network, is_offline, is_transient, retry
from builders.storage.stores import (
    NUM_ATTEMPTS,
    NUM_ATTEMPTS_OF_CLIENTS,
    READ_OPTIONS,
    advice,
    client_options,
    time_of,
)

Argument = TypeVar("Argument")
Result = TypeVar("Result")

NUM_READERS = 16
"""Number of small files that are read at once, since an object store answers each request slowly."""
CHUNK_BYTES = 32 * 1024 * 1024
"""Size of the chunks in which a large file is fetched. A broken chunk is fetched again, finished ones are not."""
BLOCK_BYTES = 1024 * 1024
"""Bytes to read ahead in files that are read in order."""
RANGES_AT_ONCE = 64
"""Number of ranges that are requested at the same time; over HTTP each takes a connection of its own."""


class RemoteStorage:
    is_local = False

    def __init__(self, root: str, num_attempts: int | None = None) -> None:
        protocol = root.partition("://")[0]
        try:
            self._fs, self.root = fsspec.core.url_to_fs(root, **client_options(protocol))
        except (ImportError, ValueError) as error:
            raise UserError(f"cannot open '{root}': {error}") from None
        self._num_attempts = num_attempts or NUM_ATTEMPTS_OF_CLIENTS.get(protocol, NUM_ATTEMPTS)
        self._may_lack_ranges = protocol in ("http", "https")
        self._is_fixed = protocol == "hf" and bool(re.search("@[0-9a-f]{40}(/|$)", self.root))
        self._read_options = READ_OPTIONS.get(protocol, {})
        self._thread_file_systems: dict[int, AbstractFileSystem] | None = (
            {} if protocol == "hf" and not self._is_fixed else None
        )

    @property
    def fs(self) -> AbstractFileSystem:
        """The file system. On the Hub each thread has its own.

        Several threads cannot share one there, because its cache of listings may change in one thread only.
        """
        if self._thread_file_systems is None:
            return self._fs
        thread = threading.get_ident()
        if thread not in self._thread_file_systems:
            own = type(self._fs)(*self._fs.storage_args, **self._fs.storage_options, skip_instance_cache=True)
            self._thread_file_systems[thread] = own
        return self._thread_file_systems[thread]

    def path(self, name: str) -> str:
        return checked_path(self.root, name)

    def url(self, name: str) -> str:
        return re.sub("//[^/@]*@", "//", str(self.fs.unstrip_protocol(self.path(name))))

    def exists(self, name: str) -> bool:
        self._forget_listings()
        try:
            self._call(name, self.fs.info, self.path(name))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def size(self, name: str) -> int:
        self._forget_listings()
        return int(self._call(name, self.fs.info, self.path(name))["size"])

    def names(self, folder: str) -> list[str]:
        return [*self._listed(folder)]

    def times(self, folder: str) -> dict[str, datetime | None]:
        return {name: time_of(info) for name, info in self._listed(folder).items()}

    def sizes(self) -> dict[str, int]:
        return {name: int(info["size"]) for name, info in self._listed("").items()}

    def each(
        self, call: Callable[[Argument], Result], arguments: Iterable[Argument], *, also_on_disk: bool = False
    ) -> list[Result]:
        def refreshed(argument: Argument) -> Result:
            # Each thread has listings of its own.
            self._forget_listings()
            return call(argument)

        with ThreadPoolExecutor(NUM_READERS) as pool:
            return list(pool.map(refreshed, arguments))

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        content = self._read_at_least(name, start, end)
        if start is None or end is None:
            return content
        return content[start:end] if len(content) > end - start else content

    def has_ranges(self, name: str) -> bool:
        if not self._may_lack_ranges:
            return True
        try:
            return bool(fsspec.asyn.sync(self.fs.loop, _has_ranges, self.fs, self.path(name)))
        except Exception:
            # Stores raise exceptions of any kind. Reading the file will report what is wrong.
            return False

    def read_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes | None]:
        if not (ranges and self.fs.async_impl):
            return self.each(self._read_range_or_none, ranges)
        names, starts, ends = ([*column] for column in zip(*ranges, strict=True))
        found = self.fs.cat_ranges(
            [self.path(name) for name in names], starts, ends, on_error="return", batch_size=RANGES_AT_ONCE
        )
        return [None if isinstance(content, BaseException) else bytes(content) for content in found]

    def _read_range_or_none(self, requested: tuple[str, int, int]) -> bytes | None:
        try:
            return self.read(*requested)
        except (OSError, ReadableError):
            return None

    def download(self, name: str, target: Path, num_bytes: int) -> str:
        sha256 = hashlib.sha256()
        with target.open("r+b") as file:
            offset = 0
            while offset < num_bytes:
                end = min(offset + CHUNK_BYTES, num_bytes)
                try:
                    content = self._read_at_least(name, offset, end)
                except FileNotFoundError:
                    raise UserError(f"{self.url(name)} is not there; run 'fakeit-build verify'") from None
                # A server that does not support ranges has sent the whole file.
                if len(content) > end - offset:
                    content = content[offset:num_bytes]
                sha256.update(content)
                offset += len(content)
                try:
                    file.write(content)
                    file.flush()
                    if offset == num_bytes:
                        os.fsync(file.fileno())
                except OSError as error:
                    raise UserError(
                        f"cannot write '{target}': {error.strerror}; make room or choose another cache"
                    ) from None
        return sha256.hexdigest()

    def _read_at_least(self, name: str, start: int | None, end: int | None) -> bytes:
        """Returns the bytes [start, end), or the whole file if the server does not support ranges."""

        def read() -> bytes:
            content = bytes(self.fs.cat_file(self.path(name), start=start, end=end, **self._read_options))
            if start is not None and end is not None and len(content) < end - start:
                raise EOFError(f"received {len(content)} of {end - start} bytes")
            return content

        return self._call(name, read)

    def open(self, name: str) -> BinaryIO:
        return cast(BinaryIO, io.BufferedReader(RemoteFile(self, name, self.size(name)), BLOCK_BYTES))

    def write(self, name: str, content: bytes) -> None:
        self._call(name, self.fs.pipe_file, self.path(name), content)

    def put(self, source: Path, name: str) -> None:
        self.upload(source, name)
        source.unlink()

    def upload(self, source: Path, name: str) -> None:
        self._call(name, self.fs.put_file, str(source), self.path(name))

    def scratch(self, name: str, folder: str = "") -> Path:
        return temporary_file(Path(folder or tempfile.gettempdir()) / PurePosixPath(name).name)

    def move(self, source: str, target: str) -> None:
        # Not `copy`, which first checks whether the target is a folder: that costs requests, and fails if one appears.
        self._call(source, self.fs.cp_file, self.path(source), self.path(target))
        self.remove(source)

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._call(name, self.fs.rm_file, self.path(name))

    def remove_all(self, names: list[str]) -> None:
        if names and self.fs.async_impl:
            # If a file has vanished meanwhile, the store may have stopped there, and the loop below removes the rest.
            with contextlib.suppress(FileNotFoundError):
                self._call(names[0], self.fs.rm, [self.path(name) for name in names])
                return
        for name in names:
            self.remove(name)

    def remove_folder(self, folder: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._call(folder, self.fs.rm, self.path(folder), recursive=True)

    def remove_empty_folders(self, folder: str) -> None:
        """Does nothing: an object store has no folders."""

    def remove_temporaries(self) -> None:
        """Does nothing: an upload is whole or absent."""

    def _listed(self, folder: str) -> dict[str, dict[str, Any]]:
        self._forget_listings()
        with contextlib.suppress(FileNotFoundError):
            start = len(self.root.rstrip("/")) + 1
            found = self._call(folder, self.fs.find, self.path(folder).rstrip("/"), detail=True)
            return {path[start:]: info for path, info in sorted(found.items())}
        return {}

    def _call(self, name: str, call: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
        """Returns call(*arguments, **options), which is retried if the network is to blame."""
        try:
            return retry(call, *arguments, num_attempts=self._num_attempts, **options)
        except ReadableError:
            raise
        except Exception as error:
            # Each store has exceptions of its own.
            if http_status(error) == 404 or isinstance(error, FileNotFoundError):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.url(name)) from None
            if not (isinstance(error, (OSError, NotImplementedError)) or is_of_the_network(error)):
                # A mistake in this code.
                raise
            if isinstance(error, NotImplementedError):
                raise UserError(f"{self.url(name)}: this store cannot be written to; choose another one") from None
            kind = UnreachableError if is_transient(error) or is_offline(error) else UserError
            raise kind(f"{self.url(name)}: {advice(error)}") from None

    def _forget_listings(self) -> None:
        """Forgets cached listings, since other processes may write to the store, too."""
        if not self._is_fixed:
            self.fs.invalidate_cache()


async def _has_ranges(fs: Any, url: str) -> bool:
    session = await fs.set_session()
    headers = {**fs.kwargs.get("headers", {}), "Range": "bytes=0-0"}
    async with session.get(fs.encode_url(url), **{**fs.kwargs, "headers": headers}) as response:
        return bool(response.status == 206)
