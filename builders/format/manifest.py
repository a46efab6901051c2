"""The manifest of a clone, `clone.json`.

Invariant: `clone.json` is written last; a clone without it is unfinished.
"""

import dataclasses
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from builders.errors import UserError
from builders.format.names import MAKING, MANIFEST, SHARDS_PER_METADATA_FILE
from builders.storage.base import Storage

FORMAT_VERSION = 2
MAX_FILE_BYTES = 1 << 40
MAX_SAMPLES = 10**7
"""Upper limit for the number of samples in a shard, and for the indexes that a shard's entry holds."""
SHA256 = re.compile("[0-9a-f]{64}")
FILE_NAME = re.compile(r"(data|metadata)/[A-Za-z0-9][A-Za-z0-9._/-]*")


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """Counts of a shard's images that were flagged or broken."""

    num_unchecked: int = 0
    """Number of images that no safety checker saw."""
    flagged: dict[str, int] = field(default_factory=dict)
    """Number of images of each class that were flagged and kept."""
    broken: dict[str, int] = field(default_factory=dict)
    """Number of images of each class that were broken at every attempt, and were kept."""
    remade: dict[str, int] = field(default_factory=dict)
    """Number of attempts of each class that were flagged, broken or low, so that another seed was tried."""
    low: dict[str, int] = field(default_factory=dict)
    """Number of images of each class that a check rejects, and that were kept after the last attempt."""

    @classmethod
    def of(cls, rows: list[dict[str, Any]], least: Mapping[str, float]) -> "Verdicts":
        """Counts the samples of a shard from their json fields; samples without fields are left out.

        Args:
            least: The least score that an image must reach, by the name of the check.
        """
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
            low=_sorted(
                Counter(row["wnid"] for row in rows if row["check_score"] < least.get(row["verdict"], -math.inf))
            ),
        )

    @classmethod
    def total(cls, verdicts: Iterable["Verdicts"]) -> "Verdicts":
        """Adds up the counts of several shards."""
        num_unchecked, sums = 0, {name: Counter[str]() for name in ("flagged", "broken", "remade", "low")}
        for verdict in verdicts:
            num_unchecked += verdict.num_unchecked
            for name, total in sums.items():
                total.update(getattr(verdict, name))
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
    """Index into `Manifest.environments`: the versions and the device that the shard was made with."""
    execution: int = 0
    """Index into `Manifest.executions`: how the shard was computed (batch size, threads, …)."""
    verdicts: Verdicts = Verdicts()
    changes: dict[str, int] = field(default_factory=dict)
    """Number of real images by the change made to them (turned upright, converted). Unchanged images do not count."""


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
    """The metadata files, in their order."""

    @property
    def num_samples(self) -> int:
        return sum(shard.num_samples for shard in self.shards)

    @property
    def num_bytes(self) -> int:
        return sum(shard.num_bytes for shard in self.shards)

    def verdict_totals(self) -> Verdicts:
        """Returns the verdicts of all shards added up."""
        return Verdicts.total(shard.verdicts for shard in self.shards)

    def change_totals(self) -> dict[str, int]:
        """Returns the numbers of changed images of all shards added up."""
        total: Counter[str] = Counter()
        for shard in self.shards:
            total.update(shard.changes)
        return _sorted(total)

    @property
    def digest(self) -> str:
        """sha256 over the sha256s of the shards, in their order. Clones with the same digest hold the same bytes."""
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
    """Parses a `clone.json`, and checks its types and totals. Fields that this version does not know are ignored.

    Raises:
        UserError: the content is not a manifest, has another format, or its totals disagree with its shards.
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
            f"'{where}' is not a clone manifest ({type(error).__name__}: {error}); make the clone again"
        ) from None
    for name, (stated, found) in totals.items():
        if stated != found:
            raise UserError(f"'{where}' states {name} {stated!r}, but its shards give {found!r}; make the clone again")
    return manifest


def check_version(version: object, where: str) -> None:
    """Checks that a manifest has the format that this version reads.

    Raises:
        UserError: it has another format.
    """
    if version == 1:
        raise UserError(f"'{where}' has clone format 1; use fakeit 0.1 for it, or make the clone again")
    if version != FORMAT_VERSION:
        raise UserError(
            f"'{where}' has clone format {version!r}, but this version of fakeit reads format {FORMAT_VERSION}; "
            "install a newer one"
        )


def known_fields(kind: Any, fields: dict[str, Any]) -> Any:
    """Makes a dataclass from a dictionary, ignoring the keys that are not fields of the dataclass."""
    return kind(**{f.name: fields[f.name] for f in dataclasses.fields(kind) if f.name in fields})


def _shard_entry(fields: dict[str, Any]) -> ShardEntry:
    entry: ShardEntry = known_fields(ShardEntry, {**fields, "verdicts": known_fields(Verdicts, fields["verdicts"])})
    return entry


def _check_types(manifest: Manifest) -> None:
    """Checks the type of each field, and that the environment and the execution of each shard exist.

    Raises:
        TypeError: a check fails.
    """
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
    # Lone surrogates are not valid text: encoding them raises a UnicodeEncodeError, which is a ValueError.
    json.dumps([manifest.recipe, manifest.label_names], ensure_ascii=False).encode()
    for file in (*manifest.shards, *manifest.metadata):
        _check_file(file)
    if len(manifest.metadata) != -(-len(manifest.shards) // SHARDS_PER_METADATA_FILE):
        raise TypeError("the number of metadata files does not fit the number of shards")
    for shard in manifest.shards:
        numbers = (shard.num_samples, shard.environment, shard.execution)
        if any(type(number) is not int or not 0 <= number <= MAX_SAMPLES for number in numbers):
            raise TypeError(f"the numbers of shard '{shard.name}' are not whole numbers from 0 to {MAX_SAMPLES}")
        verdicts = shard.verdicts
        counts = [verdicts.num_unchecked, *shard.changes.values()]
        for by_class in (verdicts.flagged, verdicts.broken, verdicts.remade, verdicts.low):
            counts += by_class.values()
        if any(type(count) is not int for count in counts):
            raise TypeError(f"the counts of shard '{shard.name}' are not whole numbers")
        if not 0 <= shard.environment < len(manifest.environments):
            raise TypeError(f"shard '{shard.name}' points to no environment")
        if shard.execution >= len(manifest.executions):
            raise TypeError(f"shard '{shard.name}' points to no execution")
    if not all(isinstance(manifest.recipe.get(name), str) for name in ("name", "engine")):
        raise TypeError("the recipe has no name or engine")


def _check_file(file: FileEntry) -> None:
    """Checks the size, the hash and the name of a file.

    A name must not lead out of the clone, and a hash must be safe to use as a file name in a cache.
    """
    if type(file.num_bytes) is not int or not 0 <= file.num_bytes <= MAX_FILE_BYTES:
        raise TypeError(f"{file.num_bytes!r} is not a number of bytes")
    if not isinstance(file.sha256, str) or not SHA256.fullmatch(file.sha256):
        raise TypeError(f"{file.sha256!r} is not a sha256")
    if not isinstance(file.name, str) or not FILE_NAME.fullmatch(file.name):
        raise TypeError(f"{file.name!r} is not the name of a clone's file")


def read_manifest(storage: Storage) -> Manifest:
    """Reads the manifest of a finished clone.

    Raises:
        UserError: there is no clone, or the clone is unfinished.
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
    """Returns the `_info.json` from which timm's `wds/` reader takes the lengths of the shards."""
    split = {
        "name": manifest.split,
        "num_samples": manifest.num_samples,
        "filenames": [shard.name for shard in manifest.shards],
        "shard_lengths": [shard.num_samples for shard in manifest.shards],
    }
    return (json.dumps({"splits": {manifest.split: split}}, indent=1) + "\n").encode()
