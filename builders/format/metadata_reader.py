"""Reads a clone's metadata shard by shard, and checks it before it is used."""

import io
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa

from builders.errors import UserError, first_line
from builders.format.manifest import FileEntry, Manifest
from builders.format.metadata import read_rows
from builders.format.names import SHARDS_PER_METADATA_FILE
from builders.format.shard_cache import ShardCache
from builders.format.tar_shard import MAX_MEMBER_BYTES
from builders.storage.base import Storage

INDEX_COLUMNS = ("key", "label", "image_offset", "image_size", "prompt_index")


@dataclass(frozen=True)
class MetadataReader:
    root: str
    manifest: Manifest
    storage: Storage
    cache: ShardCache | None

    def rows(self, shard: int, columns: list[str] | None = None) -> pa.Table:
        """Returns the metadata rows of one shard (see `schema.METADATA_SCHEMA`).

        Raises:
            UserError: the metadata file is missing, broken, or belongs to another clone.
        """
        entry = self.manifest.metadata[shard // SHARDS_PER_METADATA_FILE]
        try:
            with self._open(entry) as file:
                rows = read_rows(file, shard % SHARDS_PER_METADATA_FILE, columns)
        except (OSError, KeyError, IndexError, OverflowError, UnicodeError, pa.ArrowException) as error:
            raise UserError(
                f"'{self.storage.url(entry.name)}' cannot be read ({first_line(error)}); run 'fakeit-build verify'"
            ) from None
        if rows.num_rows != self.manifest.shards[shard].num_samples:
            raise UserError(
                f"'{self.storage.url(entry.name)}' has another number of rows than clone.json says; "
                f"run 'fakeit-build verify {self.root}'"
            )
        return rows

    def index(self, shard: int) -> dict[str, list[Any]]:
        """Returns the `INDEX_COLUMNS` of one shard as lists; for a remote clone also the sha256 of each image.

        Raises:
            UserError: the metadata cannot be read, or a label or an offset is out of range.
        """
        columns = INDEX_COLUMNS if self.storage.is_local else (*INDEX_COLUMNS, "sha256")
        index: dict[str, list[Any]] = self.rows(shard, list(columns)).to_pydict()
        shard_bytes, num_classes = self.manifest.shards[shard].num_bytes, len(self.manifest.label_names)
        for key, label, start, size, _ in zip(*(index[name] for name in INDEX_COLUMNS), strict=True):
            if not (0 <= start <= shard_bytes - size and 0 <= size <= MAX_MEMBER_BYTES):
                raise UserError(
                    f"image '{key}' in '{self.root}' has {size} bytes at {start}, which is outside of its shard; "
                    f"run 'fakeit-build verify {self.root}', and make the clone again"
                )
            if not 0 <= label < num_classes:
                raise UserError(
                    f"label {label} of '{key}' in '{self.root}' is out of range 0 to {num_classes - 1}; "
                    f"run 'fakeit-build verify {self.root}', and make the clone again"
                )
        return index

    def _open(self, file: FileEntry) -> BinaryIO:
        """Opens a metadata file, through the cache if there is one, so that each machine fetches a file only once."""
        content = self.cache.read(self.storage, file, 0, file.num_bytes) if self.cache else None
        return self.storage.open(file.name) if content is None else io.BytesIO(content)
