"""Verifies one shard: reads it once, front to back, and compares every sample with json, metadata and plan."""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import pyarrow as pa

from builders.engines.base import engine
from builders.format.manifest import Manifest, Verdicts
from builders.format.metadata import read_rows
from builders.format.names import SHARDS_PER_METADATA_FILE, metadata_name
from builders.format.schema import MEMBERS, METADATA_SCHEMA, json_faults
from builders.format.tar_shard import Member, read_members
from builders.generation.generate_samples import MAX_ATTEMPTS
from builders.generation.generate_shard import planned_fields
from builders.images.read import decode_image, read_image_header
from builders.planning.plan import Plan
from builders.recipes.checks import least_scores
from builders.recipes.recipe import Recipe
from builders.recipes.sample import Sample
from builders.storage.base import Storage

Row = dict[str, Any]
MOVED = "its members are not where the metadata says"
"""Reported only for the first such sample of a shard, because the samples after it have usually moved as well."""


@dataclass(frozen=True)
class Fault:
    where: str
    """Shard or file that has the fault."""
    text: str
    key: str = ""

    def __str__(self) -> str:
        return ": ".join(text for text in (self.where, self.key, self.text) if text)


@dataclass(frozen=True)
class ShardVerifier:
    """Verifies shards of one clone; with `deep`, decodes every image."""

    manifest: Manifest
    plan: Plan
    storage: Storage
    deep: bool

    def verify(self, shard: int) -> Iterator[Fault]:
        """Yields all faults of a shard that exists."""
        entry = self.manifest.shards[shard]
        rows, fault = self._metadata_rows(shard)
        if fault:
            yield fault
        is_planned = shard < self.plan.num_shards
        planned = {sample.key: sample for sample in self.plan.shard_samples(shard)} if is_planned else {}
        seen: dict[str, Row] = {}
        num_samples, has_moved = 0, False
        with self.storage.open(entry.name) as raw:
            file = _Hashing(raw)
            try:
                for members in _by_key(read_members(cast(BinaryIO, file))):
                    num_samples += 1
                    key = members[0].key
                    if key in seen:
                        yield Fault(entry.name, "the key occurs twice", key)
                    fields: Row = {}
                    for text in self._sample_faults(shard, members, fields, planned.get(key), rows):
                        if text != MOVED or not has_moved:
                            yield Fault(entry.name, text, key)
                        has_moved |= text == MOVED
                    seen[key] = fields
            except ValueError as error:
                yield Fault(entry.name, str(error))
            sha256, num_bytes = file.finish()
        missing = [key for key in planned if key not in seen]
        if missing:
            yield Fault(entry.name, f"the sample is missing, and {len(missing) - 1} more are", missing[0])
        elif list(seen) != list(planned):
            yield Fault(entry.name, "its samples are not in the order of the plan")
        if num_samples != entry.num_samples:
            yield Fault(entry.name, f"holds {num_samples} samples, clone.json says {entry.num_samples}")
        if (counts := Verdicts.of(list(seen.values()), least_scores(self.plan.recipe.checks))) != entry.verdicts:
            yield Fault(entry.name, f"its verdicts are {counts}, clone.json says {entry.verdicts}")
        if num_bytes != entry.num_bytes:
            yield Fault(entry.name, f"has {num_bytes} bytes, clone.json says {entry.num_bytes}")
        if sha256 != entry.sha256:
            yield Fault(entry.name, f"sha256 is {sha256}, clone.json says {entry.sha256}")

    def _metadata_rows(self, shard: int) -> tuple[dict[str, Row] | None, Fault | None]:
        """Returns a shard's metadata rows by key, or None and the fault that prevents reading them."""
        manifest, storage = self.manifest, self.storage
        name = metadata_name(manifest.split, shard // SHARDS_PER_METADATA_FILE)
        if not storage.exists(name):
            return None, None  # `verify_clone` reports the missing file
        try:
            with storage.open(name) as raw:
                table = read_rows(raw, shard % SHARDS_PER_METADATA_FILE)
        except (OSError, IndexError, OverflowError, pa.ArrowException) as error:
            return None, Fault(name, f"cannot be read ({error})")
        if not {field.name for field in METADATA_SCHEMA} <= set(table.column_names):
            return None, Fault(name, "it lacks columns of the clone format")
        table = table.select(METADATA_SCHEMA.names)
        if table.schema.remove_metadata() != METADATA_SCHEMA:
            return None, Fault(name, "its columns are not those of the clone format")
        entry = manifest.shards[shard]
        rows = {row["key"]: row for row in table.to_pylist()}
        is_its = len(rows) == table.num_rows == entry.num_samples
        if not is_its or any(row["shard"] != entry.name for row in rows.values()):
            return None, Fault(name, f"its rows are not those of {entry.name}")
        return rows, None

    def _sample_faults(
        self, shard: int, members: list[Member], fields: Row, planned: Sample | None, rows: dict[str, Row] | None
    ) -> Iterator[str]:
        """Yields the faults of one sample, and fills in `fields` from its json."""
        manifest = self.manifest
        key = members[0].key
        if "." in key:
            yield "the key has a dot"
        elif planned is None:
            yield "the recipe has no such sample in this shard"
        extensions = [member.extension for member in members]
        if extensions != ["cls", manifest.image_format, "json"]:
            yield f"members are {', '.join(extensions)}, not cls, {manifest.image_format}, json"
            return
        label_text, image, fields_text = (member.content for member in members)
        try:
            label = int(label_text.decode("ascii"))
            found = json.loads(fields_text)
        except (ValueError, RecursionError) as error:
            yield f"cls or json cannot be read ({error})"
            return
        faults = json_faults(found)
        yield from faults
        if not 0 <= label < len(manifest.label_names):
            yield f"label {label} is out of range 0 to {len(manifest.label_names) - 1}"
            return
        if faults:
            return
        fields |= found
        yield from _agreement_faults(manifest.label_names[label], key, fields)
        if planned:
            yield from self._plan_faults(shard, planned, fields)
        yield from _image_faults(manifest.image_format, image, fields, self.deep)
        if rows is not None:
            yield from _row_faults(rows.get(key), {"key": key, "label": label, **fields}, members)

    def _plan_faults(self, shard: int, planned: Sample, fields: Row) -> Iterator[str]:
        if not 0 <= fields["attempt"] < MAX_ATTEMPTS:
            yield f"json says attempt {fields['attempt']}, but there are {MAX_ATTEMPTS}"
            return
        execution = self.manifest.executions[self.manifest.shards[shard].execution]
        yield from _setting_faults(self.plan.recipe, execution.get("batch_size"), fields)
        if fields["attempt"]:
            planned = self.plan.sample(planned.label, planned.index, fields["attempt"])
        for name, value in planned_fields(self.plan.recipe, planned).items():
            if fields[name] != value:
                yield f"json says {name} {fields[name]!r}, the recipe says {value!r}"


def _setting_faults(recipe: Recipe, batch_size: Any, fields: Row) -> Iterator[str]:
    """Yields the settings in a sample's json that no image of the recipe can have in a shard with this batch size."""
    is_synthetic = engine(recipe.engine).IS_SYNTHETIC
    is_last = fields["attempt"] == MAX_ATTEMPTS - 1
    verdicts = {"off": (-1,), "flag": (-1, 0, 1), "drop": (0, 1) if is_last else (0,)}[recipe.safety]
    allowed = {
        "attempt": range(MAX_ATTEMPTS if is_synthetic else 1),
        "nsfw": verdicts,
        "broken": (0, 1) if is_last else (0,),
        "batch_size": (batch_size,),
        "batch_slot": range(fields["batch_size"]),
        "vae_dtype": (recipe.dtype, "float32", "") if is_synthetic else ("",),
        "width": (recipe.width if is_synthetic else fields["width"],),
        "height": (recipe.height if is_synthetic else fields["height"],),
    }
    for name, values in allowed.items():
        if fields[name] not in values:
            yield f"json says {name} {fields[name]!r}, which no image of the shard has"


class _Hashing(io.RawIOBase):
    """A file that hashes what is read from it; a tar is read in order, so this is the hash of the file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._num_bytes = 0
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self.sha256.update(content)
        self._num_bytes += len(content)
        return content

    def tell(self) -> int:
        return self._num_bytes

    def finish(self) -> tuple[str, int]:
        """Reads the rest, and returns the sha256 and the length of the whole file."""
        while self.read(1 << 20):
            pass
        return self.sha256.hexdigest(), self._num_bytes


def _by_key(members: Iterable[Member]) -> Iterator[list[Member]]:
    """Groups members into samples as readers do: by adjacent equal keys; a recurring extension begins a new sample."""
    sample: list[Member] = []
    for member in members:
        if sample and (member.key != sample[0].key or member.extension in {m.extension for m in sample}):
            yield sample
            sample = []
        sample.append(member)
    if sample:
        yield sample


def _agreement_faults(label_name: str, key: str, fields: Row) -> Iterator[str]:
    if fields["wnid"] != label_name:
        yield f"json says wnid {fields['wnid']}, the label says {label_name}"
    if key != f"{label_name}_{fields['index']:08d}":
        yield f"the key is not {label_name}_{fields['index']:08d}, as label and json say"


def _image_faults(image_format: str, image: bytes, fields: Row, deep: bool) -> Iterator[str]:
    if hashlib.sha256(image).hexdigest() != fields["sha256"]:
        yield "the image has another sha256 than its json says"
    try:
        header = read_image_header(image)
        if deep:
            decode_image(image)
    except ValueError as error:
        yield str(error)
        return
    if header.image_format != image_format:
        yield f"the image is a {header.image_format}, not a {image_format}"
    if (header.width, header.height) != (fields["width"], fields["height"]):
        yield f"the image is {header.width}x{header.height}, its json says {fields['width']}x{fields['height']}"


def _row_faults(row: Row | None, fields: Row, members: list[Member]) -> Iterator[str]:
    if row is None:
        yield "it has no metadata row"
        return
    offsets: Row = {}
    for name, member in zip(MEMBERS, members, strict=True):
        offsets |= {f"{name}_offset": member.offset, f"{name}_size": len(member.content)}
    if any(row[name] != value for name, value in fields.items() if name in row):
        yield "the metadata row disagrees with the tar"
    elif any(row[name] != value for name, value in offsets.items()):
        yield MOVED
