"""Reads and writes a shard: a tar of samples `<key>.cls <key>.<image> <key>.json`. Equal samples give equal bytes.

writer = ShardWriter(path, "jpg")
writer.write("n01_00000000", 3, image, fields)
rows, sha256 = writer.close()
"""

import contextlib
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from builders.format.schema import JSON_FIELDS
from builders.images.read import CLONE_FORMATS

MAX_MEMBER_BYTES = 256 * 1024 * 1024
"""Upper limit for the size of a member; readers reject larger ones."""
KEY = re.compile(r"[\w-][\w.-]*")
"""Keys of members that can be read. The clone format also forbids dots in a key, which `verify` reports."""


class _Hashed:
    """A file that hashes everything that is written to it. The tar writer never seeks back."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb")
        self.sha256 = hashlib.sha256()

    def write(self, content: bytes) -> int:
        self.sha256.update(content)
        return self.file.write(content)

    def tell(self) -> int:
        return self.file.tell()


class ShardWriter:
    """Writes a tar with plain USTAR headers, modification time 0, and empty user and group names."""

    def __init__(self, path: Path, image_format: str) -> None:
        self._image_format = image_format
        self._file = _Hashed(path)
        self._tar = tarfile.TarFile(
            fileobj=cast(BinaryIO, self._file), mode="w", format=tarfile.USTAR_FORMAT, encoding="utf-8"
        )
        self._rows: list[dict[str, Any]] = []

    def write(self, key: str, label: int, image: bytes, fields: dict[str, Any]) -> None:
        """Appends one sample. `fields` is its json without the image's `sha256`, which is added here."""
        fields = {**fields, "sha256": hashlib.sha256(image).hexdigest()}
        fields = {name: fields[name] for name in JSON_FIELDS if name in fields}
        row: dict[str, Any] = {"key": key, "label": label, **fields}
        members = {
            "cls": ("cls", str(label).encode()),
            "image": (self._image_format, image),
            "json": ("json", json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()),
        }
        for name, (extension, content) in members.items():
            row[f"{name}_offset"], row[f"{name}_size"] = self._append(f"{key}.{extension}", content), len(content)
        self._rows.append(row)

    def close(self) -> tuple[list[dict[str, Any]], str]:
        """Finishes the tar; returns its metadata rows and its sha256."""
        self._tar.close()
        self._file.file.close()
        return self._rows, self._file.sha256.hexdigest()

    def abandon(self) -> None:
        """Closes the file without finishing the tar. Buffered data that does not fit on a full disk is lost."""
        with contextlib.suppress(OSError):
            self._file.file.close()

    def _append(self, name: str, content: bytes) -> int:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(content), 0o444
        start = self._tar.offset
        self._tar.addfile(member, io.BytesIO(content))
        return start + tarfile.BLOCKSIZE


@dataclass(frozen=True, kw_only=True)
class Member:
    key: str
    extension: str
    offset: int
    content: bytes


def read_members(file: BinaryIO) -> Iterator[Member]:
    """Yields the members of a tar in their order. Memory is bounded by the largest member.

    Raises:
        ValueError: the tar is cut off or broken, or holds anything but small plain files named `<key>.<extension>`.
    """
    while True:
        header = file.read(tarfile.BLOCKSIZE)
        if header == bytes(tarfile.BLOCKSIZE) and file.read(tarfile.BLOCKSIZE) == header:
            return
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            what = "its end marker is missing" if not header.strip(b"\0") else str(error)
            raise ValueError(f"the tar cannot be read ({what}); it is cut off, or not a tar") from None
        yield _read_member(file, info)


def _read_member(file: BinaryIO, info: tarfile.TarInfo) -> Member:
    key, dot, extension = info.name.rpartition(".")
    # This rejects extended headers and sparse files, too.
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.linkname:
        raise ValueError(f"member {info.name!r} is not a plain file")
    if not dot or extension not in (*CLONE_FORMATS, "cls", "json"):
        raise ValueError(f"member {info.name!r} has another extension than cls, {', '.join(CLONE_FORMATS)}, json")
    if not KEY.fullmatch(key):
        raise ValueError(
            f"member {info.name!r} has a key with other characters than letters, digits, '_', '-' and dots"
        )
    if not 0 <= info.size <= MAX_MEMBER_BYTES:
        raise ValueError(f"member {info.name!r} has {info.size} bytes, not 0 to {MAX_MEMBER_BYTES}")
    offset = file.tell()
    content = file.read(info.size)
    padding = -info.size % tarfile.BLOCKSIZE
    if len(content) != info.size or len(file.read(padding)) != padding:
        raise ValueError(f"the tar is cut inside {info.name!r}")
    return Member(key=key, extension=extension, offset=offset, content=content)
