"""The output directory before, while and after a clone is made in it: whose it is, and what is left to do.

Invariant: an output holds one recipe. Files of anything else are never touched.
"""

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
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
    making_names,
    metadata_name,
    parse_manifest,
    shard_name,
)
from builders.format.storage import Storage
from builders.making.plan import Plan
from builders.making.recipe import recipe_from_dict
from builders.making.shard import has_sidecar, read_sidecar

TARGET = f"{MAKING}/recipe.json"
"""The recipe and the number of rounds that are being made."""
FINALISING = f"{MAKING}/finalising"
"""There once `finalise` has begun to put files in place for the target; until it ends, no other target is taken up."""
NUM_READERS = 16
"""Small files that are read at once; an object store takes its time over each."""
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
        """Those that are still to be made. One listing, and a look at each sidecar that is there, some at a time."""
        there = set(self.storage.names(MAKING))
        with ThreadPoolExecutor(NUM_READERS) as pool:
            is_made = list(pool.map(partial(self._is_made, there), asked))
        return [shard for shard, made in zip(asked, is_made, strict=True) if not made]

    def made_shards(self, asked: Iterable[int]) -> set[int]:
        """Those whose sidecar is there, by one listing and no look into them."""
        there = set(self.storage.names(MAKING))
        return {shard for shard in asked if making_names(self.plan.recipe.split, shard)[1] in there}

    def is_all_made(self) -> bool:
        """Whether each shard has a sidecar or is kept, by one listing; `finalise` looks into them."""
        made = self.made_shards(range(self.plan.num_shards))
        return all(shard in made or self._kept(shard) for shard in range(self.plan.num_shards))

    def _is_made(self, there: set[str], shard: int) -> bool:
        if making_names(self.plan.recipe.split, shard)[1] in there and has_sidecar(self.plan, shard, self.storage):
            return True
        return self._kept(shard) is not None

    def finished_shards(self) -> Iterator[FinishedShard | None]:
        """All shards in their order: what is known of a finished one, None of one that is still to be made."""
        with ThreadPoolExecutor(NUM_READERS) as pool:
            for start in range(0, self.plan.num_shards, SHARDS_PER_METADATA_FILE):
                stop = min(start + SHARDS_PER_METADATA_FILE, self.plan.num_shards)
                yield from pool.map(self.finished_shard, range(start, stop))

    def finished_shard(self, shard: int) -> FinishedShard | None:
        """What is known of a finished shard, whose sidecar is read in full; None where it is still to be made."""
        name = shard_name(self.plan.recipe.split, shard)
        if sidecar := read_sidecar(self.plan, shard, self.storage):
            facts, table = sidecar
            safety = SafetyCounts(**facts["safety"])
            return FinishedShard(
                name, table.num_rows, facts["num_bytes"], facts["sha256"], facts["environment"], safety
            )
        if (entry := self._kept(shard)) and self.old:
            return FinishedShard(
                name,
                entry.num_samples,
                entry.num_bytes,
                entry.sha256,
                self.old.environments[entry.environment],
                entry.safety,
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
    old_content = next((storage.read(name) for name in (MANIFEST, OLD_MANIFEST) if storage.exists(name)), None)
    old = parse_manifest(old_content, storage.path(MANIFEST)) if old_content else None
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
    if not output.is_complete:
        _write_target(plan, storage, target)
    return output


def open_for_reading(storage: Storage) -> Output | None:
    """What is being made at an output, or was: its own plan; None where there is neither. Writes nothing."""
    old_content = next((storage.read(name) for name in (MANIFEST, OLD_MANIFEST) if storage.exists(name)), None)
    old = parse_manifest(old_content, storage.path(MANIFEST)) if old_content else None
    target = _read_target(storage)
    if target:
        return Output(Plan(recipe_from_dict(target["recipe"]), target["num_rounds"]), storage, old)
    return Output(Plan(recipe_from_dict(old.recipe), old.num_rounds), storage, old) if old else None


def unfinished_target(plan: Plan, storage: Storage) -> Plan | None:
    """The plan that an interrupted `finalise` was putting in place, if there is one: it must be finished first."""
    target = _read_target(storage) if storage.exists(FINALISING) else None
    if target is None:
        return None
    _check_same_recipe(plan, target["recipe"], storage)
    return Plan(plan.recipe, target["num_rounds"])


def _has_sidecars(storage: Storage) -> bool:
    return any(name.endswith(".parquet") for name in storage.names(MAKING))


def _foreign_names(storage: Storage) -> list[str]:
    """Files that neither `make` nor its interrupted writers put there."""
    return [n for n in storage.names("") if not n.endswith(".tmp") and not n.startswith(f"{MAKING}/")]


def _read_target(storage: Storage) -> dict[str, Any] | None:
    if not storage.exists(TARGET):
        return None
    try:
        target = json.loads(storage.read(TARGET))
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
    ours, theirs = plan.recipe.to_dict(), recipe_from_dict(fields).to_dict()
    if ours == theirs:
        return
    differing = [name for name in ours if ours[name] != theirs[name]]
    shown = [f"{name} {_short(theirs[name])}, not {_short(ours[name])}" for name in differing[:MAX_SHOWN]]
    if len(differing) > MAX_SHOWN:
        shown.append(f"and {len(differing) - MAX_SHOWN} more fields")
    raise UserError(
        f"'{storage.root}' holds a different recipe ({'; '.join(shown)}); choose another output, or ask for that recipe"
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
