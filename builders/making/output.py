"""The output directory before, while and after a clone is made in it: whose it is, and what is left to do.

Invariant: an output holds one recipe. Files of anything else are never touched.
"""

import io
import json
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
    ShardEntry,
    metadata_name,
    parse_manifest,
    shard_name,
)
from builders.format.storage import Storage
from builders.making.plan import Plan
from builders.making.recipe import recipe_from_dict
from builders.making.shard import read_sidecar

TARGET = f"{MAKING}/recipe.json"
"""The recipe and the number of rounds that are being made."""
OLD_MANIFEST = f"{MAKING}/{MANIFEST}"
"""Where a growing clone's manifest waits while `finalise` is at work."""


@dataclass(frozen=True)
class FinishedShard:
    name: str
    num_samples: int
    num_bytes: int
    sha256: str
    environment: dict[str, str]


@dataclass
class Output:
    plan: Plan
    storage: Storage
    old: Manifest | None
    """Manifest of the clone that is here already, finished earlier and perhaps shorter."""

    @property
    def is_complete(self) -> bool:
        """Whether all is made and in place."""
        return (
            self.old is not None
            and self.old.num_rounds == self.plan.num_rounds
            and self.storage.exists(MANIFEST)
            and not self.storage.names(MAKING)
        )

    def finished_shard(self, shard: int) -> FinishedShard | None:
        """What is known of a finished shard; None where it is still to be made."""
        name = shard_name(self.plan.recipe.split, shard)
        if sidecar := read_sidecar(self.plan, shard, self.storage):
            facts, table = sidecar
            return FinishedShard(name, table.num_rows, facts["num_bytes"], facts["sha256"], facts["environment"])
        if (entry := self._kept(shard)) and self.old:
            return FinishedShard(
                name, entry.num_samples, entry.num_bytes, entry.sha256, self.old.environments[entry.environment]
            )
        return None

    def metadata_rows(self, shard: int) -> pa.Table:
        """Metadata of a finished shard."""
        if sidecar := read_sidecar(self.plan, shard, self.storage):
            return sidecar[1]
        number, row_group = divmod(shard, SHARDS_PER_METADATA_FILE)
        content = self.storage.read(metadata_name(self.plan.recipe.split, number))
        return pq.ParquetFile(io.BytesIO(content)).read_row_group(row_group)

    def _kept(self, shard: int) -> ShardEntry | None:
        """The entry of a shard of the clone that is here, if it is the same shard in this plan."""
        if self.old is None or shard >= len(self.old.shards):
            return None
        before = Plan(self.plan.recipe, self.old.num_rounds).shard_rounds(shard)
        return self.old.shards[shard] if before == self.plan.shard_rounds(shard) else None


def open_output(plan: Plan, storage: Storage) -> Output:
    """Takes an output for a plan: empty, unfinished, or a clone of the same recipe that is no longer than planned.

    Raises:
        UserError: it holds another recipe, a longer clone, or files that are no clone.
    """
    old_content = next((storage.read(name) for name in (MANIFEST, OLD_MANIFEST) if storage.exists(name)), None)
    old = parse_manifest(old_content, storage.path(MANIFEST)) if old_content else None
    target = _read_target(storage)
    if old:
        _check_same_recipe(plan, old.recipe, old.recipe_hash, storage)
        if old.num_rounds > plan.num_rounds:
            raise UserError(
                f"'{storage.root}' already holds {old.num_rounds} rounds ({old.num_samples} images), more than the "
                f"{plan.num_rounds} asked for; choose another output for a smaller clone"
            )
    if target:
        _check_same_recipe(plan, target["recipe"], target["recipe_hash"], storage)
    if not old and not target and (names := [n for n in storage.names("") if not n.endswith(".tmp")]):
        raise UserError(f"'{storage.root}' holds files but no clone ('{names[0]}'); choose an empty or new directory")
    output = Output(plan, storage, old)
    if output.old and output.old.num_rounds == plan.num_rounds and storage.exists(MANIFEST):
        if target is None or target["num_rounds"] == plan.num_rounds:
            storage.remove_folder(MAKING)  # left by a kill after the last step of finalising
        return output
    _write_target(plan, storage, target)
    return output


def _read_target(storage: Storage) -> dict[str, Any] | None:
    if not storage.exists(TARGET):
        return None
    target: dict[str, Any] = json.loads(storage.read(TARGET))
    return target


def _write_target(plan: Plan, storage: Storage, old: dict[str, Any] | None) -> None:
    recipe = plan.recipe
    target = {"recipe": recipe.to_dict(), "recipe_hash": recipe.hash, "num_rounds": plan.num_rounds}
    if target != old:
        storage.write(TARGET, json.dumps(target, ensure_ascii=False, indent=1).encode())


def _check_same_recipe(plan: Plan, fields: dict[str, Any], recipe_hash: str, storage: Storage) -> None:
    if recipe_hash == plan.recipe.hash:
        return
    ours, theirs = plan.recipe.to_dict(), recipe_from_dict(fields).to_dict()
    differing = [name for name in ours if ours[name] != theirs[name]]
    shown = [f"{name} {_short(theirs[name])}, not {_short(ours[name])}" for name in differing]
    raise UserError(
        f"'{storage.root}' holds a different recipe ({'; '.join(shown)}); choose another output, or ask for that recipe"
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
