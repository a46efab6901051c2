"""The output directory before, while and after a clone is made in it: whose it is, and what is left to do.

Invariant: an output holds one recipe. Files of anything else are never touched.
"""

import dataclasses
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from builders.format.errors import UserError
from builders.format.manifest import (
    MAKING,
    MANIFEST,
    SHARDS_PER_METADATA_FILE,
    Manifest,
    SafetyCounts,
    ShardEntry,
    making_folder,
    metadata_name,
    parse_manifest,
    shard_name,
)
from builders.format.storage import Storage
from builders.making.plan import Plan
from builders.making.recipe import recipe_from_dict
from builders.making.shard import read_sidecar, sidecar_name

TARGET = f"{MAKING}/recipe.json"
"""The recipe and the number of rounds that are being made."""
FINALISING = f"{MAKING}/finalising"
"""There once `finalise` has begun to put files in place for the target; until it ends, no other target is taken up."""
MAX_SHOWN = 4
"""Differing fields that are told of another recipe."""
OLD_MANIFEST = f"{MAKING}/{MANIFEST}"
"""Where a growing clone's manifest waits while `finalise` is at work."""


@dataclass(frozen=True)
class FinishedShard:
    name: str
    num_samples: int
    num_bytes: int
    sha256: str
    environment: dict[str, str]
    safety: SafetyCounts
    changes: dict[str, int]


@dataclass
class Output:
    plan: Plan
    storage: Storage
    old: Manifest | None
    """Manifest of the clone that is here already, finished earlier and perhaps shorter."""

    @property
    def is_complete(self) -> bool:
        """Whether all is made and in place. Shards of a longer target may wait in `_making`."""
        return (
            self.old is not None
            and self.old.num_rounds == self.plan.num_rounds
            and self.storage.exists(MANIFEST)
            and not self.storage.exists(FINALISING)
        )

    def missing_shards(self, asked: Sequence[int]) -> list[int]:
        """Those that are still to be made, by listing; `finalise` looks into what is there."""
        made = self.made_shards(asked)
        return [shard for shard in asked if shard not in made and not self.is_kept(shard)]

    def made_shards(self, asked: Iterable[int]) -> set[int]:
        """Those whose sidecar is there, by listing their folders."""
        asked = list(asked)
        folders = sorted({making_folder(shard) for shard in asked})
        there = {name for folder in folders for name in self.storage.names(folder)}
        return {shard for shard in asked if sidecar_name(self.plan, shard) in there}

    def finished_shards(self) -> Iterator[FinishedShard | None]:
        """All shards in their order: what is known of a finished one, None of one that is still to be made."""
        for start in range(0, self.plan.num_shards, SHARDS_PER_METADATA_FILE):
            stop = min(start + SHARDS_PER_METADATA_FILE, self.plan.num_shards)
            yield from self.storage.each(self.finished_shard, range(start, stop), also_on_disk=True)

    def finished_shard(self, shard: int) -> FinishedShard | None:
        """What is known of a finished shard, whose sidecar is read in full; None where it is still to be made."""
        name = shard_name(self.plan.recipe.split, shard)
        if sidecar := read_sidecar(self.plan, shard, self.storage):
            facts, table = sidecar
            safety = SafetyCounts(**facts["safety"])
            return FinishedShard(
                name,
                table.num_rows,
                facts["num_bytes"],
                facts["sha256"],
                facts["environment"],
                safety,
                facts["changes"],
            )
        if (entry := self._kept(shard)) and self.old:
            return FinishedShard(
                name,
                entry.num_samples,
                entry.num_bytes,
                entry.sha256,
                self.old.environments[entry.environment],
                entry.safety,
                entry.changes,
            )
        return None

    def metadata_rows(self, shard: int) -> pa.Table:
        """Metadata of a finished shard.

        Raises:
            UserError: the metadata of a shard that was finished earlier is missing or broken.
        """
        if sidecar := read_sidecar(self.plan, shard, self.storage):
            return sidecar[1]
        number, row_group = divmod(shard, SHARDS_PER_METADATA_FILE)
        name = metadata_name(self.plan.recipe.split, number)
        try:
            return pq.ParquetFile(io.BytesIO(self.storage.read(name))).read_row_group(row_group)
        except (OSError, pa.ArrowException) as error:
            raise UserError(
                f"'{self.storage.path(name)}' cannot be read ({error}), and the clone cannot grow without it; restore it"
            ) from None

    def is_kept(self, shard: int) -> bool:
        """Whether a shard is one of the clone that was finished here earlier."""
        return self._kept(shard) is not None

    def _kept(self, shard: int) -> ShardEntry | None:
        """The entry of a shard of the clone that is here, if it is the same shard in this plan."""
        if self.old is None or shard >= len(self.old.shards):
            return None
        before = Plan(self.plan.recipe, self.old.num_rounds).shard_rounds(shard)
        return self.old.shards[shard] if before == self.plan.shard_rounds(shard) else None


def open_output(plan: Plan, storage: Storage) -> Output:
    """Takes an output for a plan: empty, unfinished, or a clone of the same recipe that is no longer than planned.

    An output in which finalising was interrupted has to be finalised first: see `unfinished_target`.

    Raises:
        UserError: it holds another recipe, a longer clone, or files that are no clone.
    """
    old = _read_old(storage)
    target = _read_target(storage)
    if old:
        _check_same_recipe(plan, old.recipe, storage)
        if old.num_rounds > plan.num_rounds:
            raise UserError(
                f"'{storage.root}' already holds {old.num_rounds} rounds ({old.num_samples} images), more than the "
                f"{plan.num_rounds} asked for; choose another output for a smaller clone"
            )
    if target and not old and not _has_sidecars(storage):
        target = None  # nothing was finished for it, so another recipe may take its place, with smaller batches, say
    if target:
        _check_same_recipe(plan, target["recipe"], storage)
    if not old and not target and (names := _foreign_names(storage)):
        raise UserError(f"'{storage.root}' holds files but no clone ('{names[0]}'); choose an empty or new directory")
    output = Output(plan, storage, old)
    if not output.is_complete and not storage.exists(FINALISING):
        _write_target(plan, storage, target)
    return output


def open_for_reading(storage: Storage) -> Output | None:
    """What is being made at an output, or was: its own plan; None where there is neither. Writes nothing."""
    old = _read_old(storage)
    target = _read_target(storage)
    if target:
        return Output(Plan(recipe_from_dict(target["recipe"]), target["num_rounds"]), storage, old)
    return Output(Plan(recipe_from_dict(old.recipe), old.num_rounds), storage, old) if old else None


def unfinished_target(plan: Plan, storage: Storage) -> Plan | None:
    """The plan that an interrupted `finalise` was putting in place, if there is one: it must be finished first."""
    try:
        num_rounds = int(json.loads(storage.read(FINALISING))["num_rounds"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"'{storage.path(FINALISING)}' cannot be read; remove it to go on") from None
    target, old = _read_target(storage), _read_old(storage)
    if target or old:
        _check_same_recipe(plan, target["recipe"] if target else old.recipe if old else {}, storage)
    return Plan(plan.recipe, num_rounds)


def begin_finalising(plan: Plan, storage: Storage) -> None:
    """Marks that this plan is put in place; until the mark goes, no other target is taken up."""
    storage.write(FINALISING, json.dumps({"num_rounds": plan.num_rounds}).encode())


def is_target(plan: Plan, storage: Storage) -> bool:
    """Whether the output is still to become this plan's clone, and no longer one."""
    target = _read_target(storage)
    return target is not None and target["num_rounds"] == plan.num_rounds


def _read_old(storage: Storage) -> Manifest | None:
    """The manifest of the clone that is here already; looked for twice, for a finaliser may be moving it."""
    for name in (MANIFEST, OLD_MANIFEST, MANIFEST):
        try:
            return parse_manifest(storage.read(name), storage.path(MANIFEST))
        except (FileNotFoundError, NotADirectoryError):
            continue
    return None


def _has_sidecars(storage: Storage) -> bool:
    return any(name.endswith(".parquet") for name in storage.names(MAKING))


def _foreign_names(storage: Storage) -> list[str]:
    """Files that neither `make` nor its interrupted writers put there."""
    return [n for n in storage.names("") if not n.endswith(".tmp") and not n.startswith(f"{MAKING}/")]


def _read_target(storage: Storage) -> dict[str, Any] | None:
    try:
        target = json.loads(storage.read(TARGET))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        target = None
    try:
        return {"recipe": target["recipe"], "num_rounds": int(target["num_rounds"])}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"'{storage.path(TARGET)}' cannot be read ({type(error).__name__}); remove '{MAKING}' beside it to start anew"
        ) from None


def _write_target(plan: Plan, storage: Storage, old: dict[str, Any] | None) -> None:
    recipe = plan.recipe
    target = {"recipe": recipe.to_dict(), "num_rounds": plan.num_rounds}
    if target != old:
        storage.write(TARGET, json.dumps(target, ensure_ascii=False, indent=1).encode())


def _check_same_recipe(plan: Plan, fields: dict[str, Any], storage: Storage) -> None:
    ours, theirs = plan.recipe, recipe_from_dict(fields)
    if ours == theirs:
        return
    names = [f.name for f in dataclasses.fields(ours) if f.compare]
    differing = [name for name in names if getattr(ours, name) != getattr(theirs, name)]
    shown = [
        f"{name} {_short(getattr(theirs, name))}, not {_short(getattr(ours, name))}" for name in differing[:MAX_SHOWN]
    ]
    if len(differing) > MAX_SHOWN:
        shown.append(f"and {len(differing) - MAX_SHOWN} more fields")
    raise UserError(
        f"'{storage.root}' holds a different recipe ({'; '.join(shown)}); choose another output, or ask for that recipe"
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
