"""Is a clone whole and true? Every shard is read once, front to back; every fault is told with its shard and key.

Without `deep` it checks names, sizes, checksums, tar structure, keys, labels, json, picture headers and hashes, metadata,
timm's index and the card; with it, every picture is decoded too.
"""

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from builders.format.images import decode_image, read_image_header
from builders.format.manifest import (
    CARD,
    SHARDS_PER_METADATA_FILE,
    TIMM_INDEX,
    Manifest,
    metadata_name,
    read_manifest,
    timm_index,
)
from builders.format.schema import METADATA_SCHEMA, json_faults
from builders.format.shards import Member, read_members
from builders.format.storage import Storage
from builders.making.output import FINALISING
from builders.making.recipe import recipe_from_dict
from builders.publishing.card import render_card


@dataclass(frozen=True)
class Fault:
    place: str
    """Shard or file."""
    text: str
    key: str = ""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.place, self.key, self.text) if part)


def verify_clone(
    storage: Storage, *, deep: bool = False, on_samples: Callable[[int], object] = lambda num_samples: None
) -> Iterator[Fault]:
    """All faults of a finished clone; memory does not grow with its size.

    Raises:
        UserError: there is no clone, it is unfinished, or its manifest cannot be read.
    """
    manifest = read_manifest(storage)
    yield from _verify_files(manifest, storage)
    for shard, entry in enumerate(manifest.shards):
        if storage.exists(entry.name):
            yield from _verify_shard(manifest, shard, storage, deep)
        on_samples(entry.num_samples)


def _verify_files(manifest: Manifest, storage: Storage) -> Iterator[Fault]:
    shards = {entry.name for entry in manifest.shards}
    num_metadata = -(-len(shards) // SHARDS_PER_METADATA_FILE)
    metadata = {metadata_name(manifest.split, number) for number in range(num_metadata)}
    there = set(storage.names("data")) | set(storage.names("metadata"))
    for name in sorted((shards | metadata) - there):
        yield Fault(name, "missing")
    for name in sorted(there - shards - metadata):
        yield Fault(name, "extra file that is not in clone.json")
    if storage.exists(FINALISING):
        yield Fault(FINALISING, "left over from finalising; run 'fakeit-build make' again")
    recipe = recipe_from_dict(manifest.recipe)
    if recipe.hash != manifest.recipe_hash:
        yield Fault("clone.json", "the recipe is not the one whose hash is recorded")
    if recipe.label_names != manifest.label_names:
        yield Fault("clone.json", "label names differ from the recipe's classes")
    for name, expected in ((TIMM_INDEX, timm_index(manifest)), (CARD, render_card(manifest, recipe).encode())):
        if not storage.exists(name):
            yield Fault(name, "missing")
        elif storage.read(name) != expected:
            yield Fault(name, "stale: it does not say what clone.json says")


class _Hashing(io.RawIOBase):
    """A file that hashes what passes through it; the tar is read in order, so the hash is the file's."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hashed = 0
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        start = self._file.tell()
        content = self._file.read(size)
        if start + len(content) > self._hashed:
            self.sha256.update(content[self._hashed - start :])
            self._hashed = start + len(content)
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        target = offset if whence == 0 else self._file.tell() + offset
        if target > self._hashed:  # skipped bytes are hashed, too
            self._file.seek(self._hashed)
            while self._hashed < target and self.read(min(1 << 20, target - self._hashed)):
                pass
        return self._file.seek(target)

    def tell(self) -> int:
        return self._file.tell()

    def finish(self) -> tuple[str, int]:
        """sha256 and length of the whole file."""
        self._file.seek(self._hashed)
        while self.read(1 << 20):
            pass
        return self.sha256.hexdigest(), self._hashed


def _verify_shard(manifest: Manifest, shard: int, storage: Storage, deep: bool) -> Iterator[Fault]:
    entry = manifest.shards[shard]
    rows, fault = _metadata_rows(manifest, shard, storage)
    if fault:
        yield fault
    with storage.fs.open(storage.path(entry.name), "rb") as raw:
        file = _Hashing(raw)
        num_samples = 0
        try:
            for number, members in enumerate(_by_key(read_members(cast(BinaryIO, file)))):
                num_samples += 1
                row = rows[number] if rows and number < len(rows) else None
                key = members[0].key
                for text in _sample_faults(manifest, members, row, deep):
                    yield Fault(entry.name, text, key)
        except ValueError as error:
            yield Fault(entry.name, str(error))
        sha256, num_bytes = file.finish()
    if num_samples != entry.num_samples:
        yield Fault(entry.name, f"holds {num_samples} samples, clone.json says {entry.num_samples}")
    if num_bytes != entry.num_bytes:
        yield Fault(entry.name, f"has {num_bytes} bytes, clone.json says {entry.num_bytes}")
    if sha256 != entry.sha256:
        yield Fault(entry.name, f"sha256 is {sha256}, clone.json says {entry.sha256}")


def _metadata_rows(
    manifest: Manifest, shard: int, storage: Storage
) -> tuple[list[dict[str, Any]] | None, Fault | None]:
    name = metadata_name(manifest.split, shard // SHARDS_PER_METADATA_FILE)
    if not storage.exists(name):
        return None, None  # told with the files
    try:
        with storage.fs.open(storage.path(name), "rb") as raw:
            table = pq.ParquetFile(raw).read_row_group(shard % SHARDS_PER_METADATA_FILE)
    except (OSError, pa.ArrowException) as error:
        return None, Fault(name, f"cannot be read ({error})")
    if table.schema.remove_metadata() != METADATA_SCHEMA:
        return None, Fault(name, "its columns are not those of the clone format")
    entry = manifest.shards[shard]
    if table.num_rows != entry.num_samples or set(table["shard"].to_pylist()) != {entry.name}:
        return None, Fault(name, f"its rows are not those of {entry.name}")
    return table.to_pylist(), None


def _by_key(members: Iterable[Member]) -> Iterator[list[Member]]:
    """Members grouped as readers group them: adjacent ones of the same key, a new sample where an extension recurs."""
    group: list[Member] = []
    for member in members:
        if group and (member.key != group[0].key or member.extension in {m.extension for m in group}):
            yield group
            group = []
        group.append(member)
    if group:
        yield group


def _sample_faults(manifest: Manifest, members: list[Member], row: dict[str, Any] | None, deep: bool) -> Iterator[str]:
    key = members[0].key
    if "." in key:
        yield "the key has a dot"
    extensions = [member.extension for member in members]
    if extensions != ["cls", manifest.image_format, "json"]:
        yield f"members are {', '.join(extensions)}, not cls, {manifest.image_format}, json"
        return
    label_text, picture, fields_text = (member.content for member in members)
    try:
        label = int(label_text.decode("ascii"))
        fields = json.loads(fields_text)
    except ValueError as error:
        yield f"cls or json cannot be read ({error})"
        return
    faults = json_faults(fields)
    yield from faults
    if not 0 <= label < len(manifest.label_names):
        yield f"label {label} is out of range 0 to {len(manifest.label_names) - 1}"
        return
    if faults:
        return
    yield from _agreement_faults(manifest.label_names[label], key, fields)
    yield from _picture_faults(manifest.image_format, picture, fields, deep)
    if row is not None and _expected_row(key, label, fields, members) != {k: v for k, v in row.items() if k != "shard"}:
        yield "the metadata row says something else than the tar"


def _agreement_faults(label_name: str, key: str, fields: dict[str, Any]) -> Iterator[str]:
    if fields["wnid"] != label_name:
        yield f"json says wnid {fields['wnid']}, the label says {label_name}"
    if key != f"{label_name}_{fields['index']:08d}":
        yield f"the key is not {label_name}_{fields['index']:08d}, as label and json say"


def _picture_faults(image_format: str, picture: bytes, fields: dict[str, Any], deep: bool) -> Iterator[str]:
    if hashlib.sha256(picture).hexdigest() != fields["sha256"]:
        yield "the picture has another sha256 than its json says"
    try:
        header = read_image_header(picture)
        if deep:
            decode_image(picture)
    except ValueError as error:
        yield str(error)
        return
    if header.image_format != image_format:
        yield f"the picture is a {header.image_format}, not a {image_format}"
    if (header.width, header.height) != (fields["width"], fields["height"]):
        yield f"the picture is {header.width}x{header.height}, its json says {fields['width']}x{fields['height']}"


def _expected_row(key: str, label: int, fields: dict[str, Any], members: list[Member]) -> dict[str, Any]:
    row = {"key": key, "label": label, **fields}
    for name, member in zip(("cls", "image", "json"), members, strict=True):
        row |= {f"{name}_offset": member.offset, f"{name}_size": len(member.content)}
    return row
