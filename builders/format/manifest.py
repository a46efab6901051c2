"""The clone's table of contents, `clone.json`, and the names of its files.

Invariant: `clone.json` is written last; a clone without it is unfinished.
"""

import dataclasses
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from builders.errors import UserError
from builders.storage.base import Storage

MANIFEST = "clone.json"
CARD = "README.md"
TIMM_INDEX = "_info.json"
MAKING = "_making"
FORMAT_VERSION = 2
SHARDS_PER_FOLDER = 1000
SHARDS_PER_METADATA_FILE = 100
MAX_FILE_BYTES = 1 << 40
MAX_SAMPLES = 10**7
"""Of a shard."""
SHA256 = re.compile("[0-9a-f]{64}")
FILE_NAME = re.compile(r"(data|metadata)/[A-Za-z0-9][A-Za-z0-9._/-]*")


def shard_name(split: str, shard: int) -> str:
    """Where a shard lies in a finished clone: "data/000/train-000000.tar"."""
    return f"data/{shard // SHARDS_PER_FOLDER:03d}/{split}-{shard:06d}.tar"


def metadata_name(split: str, number: int) -> str:
    """The number-th metadata file, which holds shards 100 x number onwards, a row group each."""
    return f"metadata/{split}-{number:05d}.parquet"


def staging_folder(shard: int) -> str:
    """Where a shard's files lie while the clone is being made."""
    return f"{MAKING}/{shard // SHARDS_PER_FOLDER:03d}"


def staging_stem(split: str, shard: int, recipe_hash: str, end_round: int) -> str:
    """What the names of a shard's files begin with while the clone is being made.

    The names say of which recipe and rounds the shard is: so a listing tells what is made, and a shard that ends a clone is
    another one than its namesake in a longer clone.
    """
    return f"{staging_folder(shard)}/{split}-{shard:06d}-{end_round}-{recipe_hash[:8]}"


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """How many of a shard's images were flagged or broken."""

    num_unchecked: int = 0
    """Images that no safety checker saw."""
    flagged: dict[str, int] = field(default_factory=dict)
    """By class: images that were flagged and kept."""
    broken: dict[str, int] = field(default_factory=dict)
    """By class: images that came out broken at every attempt, and were kept."""
    remade: dict[str, int] = field(default_factory=dict)
    """By class: attempts that were flagged or broken, and made again with another seed."""

    @classmethod
    def of(cls, rows: list[dict[str, Any]]) -> "Verdicts":
        """Counts samples by their fields; rows without any are left out."""
        rows = [row for row in rows if row]
        remade: Counter[str] = Counter()
        for row in rows:
            if row["attempt"]:
                remade[row["wnid"]] += row["attempt"]
        return cls(
            num_unchecked=sum(row["nsfw"] == -1 for row in rows),
            flagged=_sorted(Counter(row["wnid"] for row in rows if row["nsfw"] == 1)),
            broken=_sorted(Counter(row["wnid"] for row in rows if row["broken"] == 1)),
            remade=_sorted(remade),
        )

    @classmethod
    def total(cls, verdicts: Iterable["Verdicts"]) -> "Verdicts":
        """The counts of several shards added up."""
        num_unchecked, sums = 0, {name: Counter[str]() for name in ("flagged", "broken", "remade")}
        for some in verdicts:
            num_unchecked += some.num_unchecked
            for name, total in sums.items():
                total.update(getattr(some, name))
        return cls(num_unchecked=num_unchecked, **{name: _sorted(total) for name, total in sums.items()})


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ShardEntry(FileEntry):
    num_samples: int
    environment: int
    """Position in `Manifest.environments` of the versions and the device it was made with."""
    execution: int = 0
    """Position in `Manifest.executions` of how it was computed: batch size, threads, …"""
    verdicts: Verdicts = Verdicts()
    changes: dict[str, int] = field(default_factory=dict)
    """How many of a real set's images were turned upright or converted; nothing for images kept as they are."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    recipe: dict[str, Any]
    recipe_hash: str
    split: str
    image_format: str
    label_names: list[str]
    num_rounds: int
    is_synthetic: bool
    """False for a clone of real images."""
    environments: list[dict[str, str]]
    executions: list[dict[str, Any]]
    shards: list[ShardEntry]
    metadata: list[FileEntry]
    """The metadata files in their order."""

    @property
    def num_samples(self) -> int:
        return sum(shard.num_samples for shard in self.shards)

    @property
    def num_bytes(self) -> int:
        return sum(shard.num_bytes for shard in self.shards)

    def verdict_totals(self) -> Verdicts:
        """The shards' counts added up."""
        return Verdicts.total(shard.verdicts for shard in self.shards)

    def change_totals(self) -> dict[str, int]:
        """The shards' counts of changed images added up."""
        total: Counter[str] = Counter()
        for shard in self.shards:
            total.update(shard.changes)
        return _sorted(total)

    @property
    def digest(self) -> str:
        """sha256 over the shards' own, in their order: two clones with the same digest hold the same bytes."""
        return hashlib.sha256("\n".join(shard.sha256 for shard in self.shards).encode()).hexdigest()

    def to_json(self) -> bytes:
        content = {
            "format": FORMAT_VERSION,
            "num_samples": self.num_samples,
            "num_bytes": self.num_bytes,
            "digest": self.digest,
            **asdict(self),
        }
        return (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode()


def parse_manifest(content: bytes, where: str) -> Manifest:
    """A `clone.json`, checked in types and totals. Fields that this version does not know are passed over.

    Raises:
        UserError: it is no manifest, of another format, or its totals disagree with its shards.
    """
    try:
        fields = json.loads(content)
        version = fields["format"]
        check_version(version, where)
        shards = [_shard_entry(shard) for shard in fields["shards"]]
        metadata = [known_fields(FileEntry, file) for file in fields["metadata"]]
        manifest = known_fields(Manifest, {**fields, "shards": shards, "metadata": metadata})
        _check_types(manifest)
        totals = {name: (fields[name], getattr(manifest, name)) for name in ("num_samples", "num_bytes", "digest")}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"'{where}' is no clone manifest ({type(error).__name__}: {error}); make the clone again"
        ) from None
    for name, (said, found) in totals.items():
        if said != found:
            raise UserError(f"'{where}' says {name} {said!r}, but its shards add up to {found}; make the clone again")
    return manifest


def check_version(version: object, where: str) -> None:
    """Checks that a manifest's format is the one that this version reads.

    Raises:
        UserError: it is another one.
    """
    if version == 1:
        raise UserError(f"'{where}' has clone format 1; use fakeit 0.1 for it, or make the clone again")
    if version != FORMAT_VERSION:
        raise UserError(
            f"'{where}' has clone format {version!r}, this version of fakeit reads format {FORMAT_VERSION}; "
            "install a newer one"
        )


def known_fields(kind: Any, fields: dict[str, Any]) -> Any:
    """A dataclass from those of some fields that it has."""
    return kind(**{f.name: fields[f.name] for f in dataclasses.fields(kind) if f.name in fields})


def _shard_entry(fields: dict[str, Any]) -> ShardEntry:
    entry: ShardEntry = known_fields(ShardEntry, {**fields, "verdicts": known_fields(Verdicts, fields["verdicts"])})
    return entry


def _check_types(manifest: Manifest) -> None:
    """Raises TypeError where a field is not of its type, or a shard points to no environment."""
    for name, kind in (
        ("recipe", dict),
        ("recipe_hash", str),
        ("split", str),
        ("image_format", str),
        ("num_rounds", int),
        ("is_synthetic", bool),
    ):
        if type(getattr(manifest, name)) is not kind:
            raise TypeError(f"{name} is not of type {kind.__name__}")
    for name, kind in (("label_names", str), ("environments", dict), ("executions", dict)):
        items = getattr(manifest, name)
        if type(items) is not list or not all(isinstance(item, kind) for item in items):
            raise TypeError(f"{name} is not a list of {kind.__name__}")
    json.dumps([manifest.recipe, manifest.label_names], ensure_ascii=False).encode()  # texts that are no texts
    for file in (*manifest.shards, *manifest.metadata):
        _check_file(file)
    if len(manifest.metadata) != -(-len(manifest.shards) // SHARDS_PER_METADATA_FILE):
        raise TypeError("there are not as many metadata files as its shards have")
    for shard in manifest.shards:
        numbers = (shard.num_samples, shard.environment, shard.execution)
        if any(type(number) is not int or not 0 <= number <= MAX_SAMPLES for number in numbers):
            raise TypeError("a shard's fields are not of their types")
        verdicts = shard.verdicts
        counts = [verdicts.num_unchecked, *shard.changes.values()]
        for by_class in (verdicts.flagged, verdicts.broken, verdicts.remade):
            counts += by_class.values()
        if any(type(count) is not int for count in counts):
            raise TypeError(f"the counts of shard '{shard.name}' are no numbers")
        if not 0 <= shard.environment < len(manifest.environments):
            raise TypeError(f"shard '{shard.name}' points to no environment")
        if shard.execution >= len(manifest.executions):
            raise TypeError(f"shard '{shard.name}' points to no execution")
    if not all(isinstance(manifest.recipe.get(name), str) for name in ("name", "engine")):
        raise TypeError("the recipe has no name or engine")


def _check_file(file: FileEntry) -> None:
    """Names stay within the clone, and a hash may name a file in a cache."""
    if type(file.num_bytes) is not int or not 0 <= file.num_bytes <= MAX_FILE_BYTES:
        raise TypeError(f"{file.num_bytes!r} is no number of bytes")
    if not isinstance(file.sha256, str) or not SHA256.fullmatch(file.sha256):
        raise TypeError(f"{file.sha256!r} is no sha256")
    if not isinstance(file.name, str) or not FILE_NAME.fullmatch(file.name):
        raise TypeError(f"{file.name!r} is no name of a clone's file")


def read_manifest(storage: Storage) -> Manifest:
    """The manifest of a finished clone.

    Raises:
        UserError: nothing is there, or the clone is unfinished.
    """
    try:
        return parse_manifest(storage.read(MANIFEST), storage.path(MANIFEST))
    except FileNotFoundError:
        pass
    if storage.names(MAKING):
        raise UserError(
            f"the clone at '{storage.root}' is unfinished; run its 'fakeit-build make' again to complete it"
        )
    raise UserError(
        f"no clone at '{storage.root}' (no {MANIFEST}); make one with 'fakeit-build make RECIPE {storage.root}'"
    )


def timm_index(manifest: Manifest) -> bytes:
    """The `_info.json` that timm's `wds/` reader takes its shard lengths from."""
    split = {
        "name": manifest.split,
        "num_samples": manifest.num_samples,
        "filenames": [shard.name for shard in manifest.shards],
        "shard_lengths": [shard.num_samples for shard in manifest.shards],
    }
    return (json.dumps({"splits": {manifest.split: split}}, indent=1) + "\n").encode()
