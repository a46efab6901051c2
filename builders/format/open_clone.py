"""Reading a clone: its manifest, its metadata, and any sample by number, through the recorded offsets; nothing is unpacked.

clone = open_clone("imagenet-100-sd")
sample = clone[12345]                  # key, label, encoded picture
"""

import bisect
import itertools
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from builders.format.errors import UserError
from builders.format.manifest import SHARDS_PER_METADATA_FILE, Manifest, metadata_name, read_manifest
from builders.format.storage import Storage

NUM_OPEN_SHARDS = 64
INDEX_COLUMNS = ("key", "label", "image_offset", "image_size")


@dataclass(frozen=True)
class EncodedSample:
    key: str
    label: int
    picture: bytes


class Clone:
    """A finished clone, samples numbered 0 … n - 1 in shard order. Cheap to open and to send to a worker process.

    Memory stays bounded: the indexes and the maps of the `NUM_OPEN_SHARDS` shards used last are kept.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        self.storage = Storage(root)
        self.manifest: Manifest = read_manifest(self.storage)
        self.shard_index = lru_cache(maxsize=NUM_OPEN_SHARDS)(self._read_index)
        self._map = lru_cache(maxsize=NUM_OPEN_SHARDS)(self._open_map)

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["root"])  # type: ignore[misc]

    @cached_property
    def shard_starts(self) -> list[int]:
        """The number of each shard's first sample, and the total at the end."""
        return [0, *itertools.accumulate(shard.num_samples for shard in self.manifest.shards)]

    def __len__(self) -> int:
        return self.shard_starts[-1]

    def locate(self, number: int) -> tuple[int, int]:
        """Shard and row of a sample."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        shard = bisect.bisect_right(self.shard_starts, number) - 1
        return shard, number - self.shard_starts[shard]

    def __getitem__(self, number: int) -> EncodedSample:
        shard, row = self.locate(number)
        index = self.shard_index(shard)
        start, size = index["image_offset"][row], index["image_size"][row]
        return EncodedSample(index["key"][row], index["label"][row], self._read(shard, start, start + size))

    def __iter__(self) -> Iterator[EncodedSample]:
        return (self[number] for number in range(len(self)))

    def key(self, number: int) -> str:
        """The key of a sample; no picture is read."""
        shard, row = self.locate(number)
        return str(self.shard_index(shard)["key"][row])

    def _read_index(self, shard: int) -> dict[str, list[Any]]:
        """`INDEX_COLUMNS` of one shard as lists.

        Raises:
            UserError: the metadata cannot be read, or a label is out of range.
        """
        index = self.metadata(shard, list(INDEX_COLUMNS)).to_pydict()
        num_classes = len(self.manifest.label_names)
        for key, label in zip(index["key"], index["label"], strict=True):
            if not 0 <= label < num_classes:
                raise UserError(
                    f"label {label} of '{key}' in '{self.root}' is out of range 0 to {num_classes - 1}; "
                    f"run 'fakeit-build verify {self.root}', and make the clone again"
                )
        return index

    def metadata(self, shard: int, columns: list[str] | None = None) -> pa.Table:
        """Metadata rows of one shard (see `schema.METADATA_SCHEMA`).

        Raises:
            UserError: the metadata file is missing, broken, or of another clone.
        """
        name = metadata_name(self.manifest.split, shard // SHARDS_PER_METADATA_FILE)
        try:
            with self.storage.fs.open(self.storage.path(name), "rb") as file:
                table = pq.ParquetFile(file).read_row_group(shard % SHARDS_PER_METADATA_FILE, columns=columns)
        except (OSError, KeyError, pa.ArrowException) as error:
            raise UserError(
                f"'{self.storage.path(name)}' cannot be read ({error}); run 'fakeit-build verify'"
            ) from None
        if table.num_rows != self.manifest.shards[shard].num_samples:
            raise UserError(
                f"'{self.storage.path(name)}' does not fit the clone; run 'fakeit-build verify {self.root}'"
            )
        return table

    def _read(self, shard: int, start: int, end: int) -> bytes:
        path = self.storage.path(self.manifest.shards[shard].name)
        try:
            content = (
                self._map(path)[start:end] if self.storage.is_local else self.storage.fs.cat_file(path, start, end)
            )
        except (OSError, ValueError) as error:
            raise UserError(f"shard '{path}' cannot be read ({error}); run 'fakeit-build verify {self.root}'") from None
        if len(content) != end - start:
            raise UserError(f"shard '{path}' is cut; run 'fakeit-build verify {self.root}'")
        return bytes(content)

    def _open_map(self, path: str) -> mmap.mmap:
        with open(path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def open_clone(root: str | Path) -> Clone:
    """A finished clone in a directory or at any fsspec URL.

    Raises:
        UserError: there is none, it is unfinished, or its manifest is broken.
    """
    return Clone(root)
