"""Reads images from a published archive (.tar, .tar.gz, .zip); an image's class is the folder that holds it.

Members of a tar and of a zip are read in place; nothing is extracted. A compressed tar cannot be read in place, so it
is decompressed once, into the cache."""

import errno
import gzip
import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from builders.errors import UserError
from builders.format.tar_shard import MAX_MEMBER_BYTES
from builders.image_sets.base import ImageSet, digest_of
from builders.images.folders import is_image, is_visible, readable
from builders.images.read import ReadImage, read_image
from builders.storage.cache_folder import cache_folder

TARS, COMPRESSED, ZIPS = (".tar",), (".tar.gz", ".tgz"), (".zip",)


BROKEN = (
    OSError, KeyError, tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError, RuntimeError, zlib.error, lzma.LZMAError,
)  # fmt: skip
"""Errors that readers raise on damaged archives."""


def is_archive(path: str) -> bool:
    """Whether a path has the suffix of an archive."""
    return path.lower().endswith((*TARS, *COMPRESSED, *ZIPS))


def open_archive(path: str, name: str = "") -> ImageSet:
    """Opens the images of an archive, ordered by class and name.

    Args:
        name: Name in tables of results; by default the file name without its suffixes.

    Raises:
        UserError: the archive is missing or broken, or has no images in class folders.
    """
    try:
        if path.lower().endswith(ZIPS):
            members, read_at = _list_zip(path)
        else:
            members, read_at = _list_tar(_decompressed(path) if path.lower().endswith(COMPRESSED) else path)
        times = str(os.stat(path).st_mtime_ns)
    except BROKEN as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(f"archive '{path}' cannot be read ({error}); download it again") from None
    listed = sorted((_class_of(member.name), member) for member in members)
    if not listed or not all(class_name for class_name, _ in listed):
        raise UserError(f"archive '{path}' has no images in class folders; give one with a folder for each class")
    class_names = tuple(sorted({class_name for class_name, _ in listed}))
    numbers = {class_name: number for number, class_name in enumerate(class_names)}
    return ImageSet(
        name=name or Path(path).name.partition(".")[0],
        location=path,
        class_names=class_names,
        labels=np.array([numbers[class_name] for class_name, _ in listed], dtype=np.int64),
        digest=digest_of([f"{member.name}\t{member.num_bytes}\t{class_name}" for class_name, member in listed]),
        state=times,
        read=_ReadMembers(path, tuple(member for _, member in listed), read_at),
        key_of=lambda number: readable(listed[number][1].name),
    )


@dataclass(frozen=True, order=True)
class _Member:
    name: str
    start: int
    """Byte offset of the content in a tar; 0 in a zip."""
    num_bytes: int


@dataclass(frozen=True)
class _ReadMembers:
    path: str
    members: tuple[_Member, ...]
    read_at: Callable[[_Member], bytes]

    def __call__(self, number: int, policy: str) -> ReadImage:
        member = self.members[number]
        try:
            return read_image(self.read_at(member), policy)
        except BROKEN as error:
            raise UserError(
                f"'{member.name}' in '{self.path}' cannot be read ({error}); download the archive again"
            ) from None


@dataclass(frozen=True)
class _InTar:
    path: str

    def __call__(self, member: _Member) -> bytes:
        with open(self.path, "rb") as file:
            file.seek(member.start)
            return file.read(member.num_bytes)


@dataclass(frozen=True)
class _InZip:
    path: str

    def __call__(self, member: _Member) -> bytes:
        return _open_zip(self.path, os.getpid(), os.stat(self.path).st_mtime_ns).read(member.name)


@lru_cache(maxsize=8)
def _open_zip(path: str, process: int, time: int) -> zipfile.ZipFile:
    """Opens a zip once per process and version of the file.

    Parsing its long table of members each time would be slow, and forked processes that share an open file would move
    each other's read position."""
    return zipfile.ZipFile(path)


def _list_tar(path: str) -> tuple[list[_Member], Callable[[_Member], bytes]]:
    with tarfile.open(path, "r:") as tar:
        found = [
            _Member(member.name, member.offset_data, member.size)
            for member in tar
            if member.isreg() and not member.issparse() and _is_image(member.name)
        ]
    size = os.stat(path).st_size
    return [_checked(member, size) for member in found], _InTar(path)


def _list_zip(path: str) -> tuple[list[_Member], Callable[[_Member], bytes]]:
    with zipfile.ZipFile(path) as file:
        found = [_Member(info.filename, 0, info.file_size) for info in file.infolist() if _is_image(info.filename)]
    return [_checked(member, MAX_MEMBER_BYTES) for member in found], _InZip(path)


def _is_image(name: str) -> bool:
    return is_image(name) and all(component == "." or is_visible(component) for component in name.split("/"))


def _checked(member: _Member, end: int) -> _Member:
    if member.num_bytes > MAX_MEMBER_BYTES or member.start + member.num_bytes > end:
        raise ValueError(
            f"'{member.name}' has {member.num_bytes} bytes, more than an image may have or than the archive holds"
        )
    return member


def _class_of(name: str) -> str:
    return readable(name.rpartition("/")[0].rpartition("/")[2])


def _decompressed(path: str) -> str:
    """Path of the decompressed tar in the cache; each version of the file is decompressed once."""
    status = os.stat(path)
    stem = Path(path).name.partition(".")[0]
    out = cache_folder() / "archives" / f"{stem}-{status.st_size}-{status.st_mtime_ns}.tar"
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = out.with_suffix(f".{os.getpid()}.tmp")
        try:
            with gzip.open(path) as source, scratch.open("wb") as target:
                shutil.copyfileobj(source, target, 2**20)
            scratch.replace(out)
        finally:
            scratch.unlink(missing_ok=True)
    return str(out)
