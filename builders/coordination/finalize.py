"""Finalizes a clone: writes metadata, moves shards to final names, writes timm's index, the card and `clone.json`.

`clone.json` is written last, so readers never see an unfinished clone.
`finalize` may be killed at any point and run again, and two runs may finalize at the same time: the files are the same.
Memory holds one entry per shard, and one metadata file.
"""

import hashlib
import io
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from builders.card.render import clone_card
from builders.card.sections import CardText
from builders.coordination.output import FINALIZING, OLD_MANIFEST, State
from builders.engines.base import engine
from builders.errors import UserError
from builders.format.manifest import FileEntry, Manifest, ShardEntry, Verdicts, known_fields, timm_index
from builders.format.names import (
    CARD,
    MAKING,
    MANIFEST,
    PROMPTS,
    SHARDS_PER_METADATA_FILE,
    TARGET,
    TIMM_INDEX,
    metadata_name,
    shard_name,
)
from builders.format.schema import METADATA_SCHEMA
from builders.generation.generate_shard import read_sidecar, sidecar_name, tar_name
from builders.planning.plan import Plan
from builders.prompts.prompt_table import prompt_file_of

NUM_MOVERS = 32
"""Number of files that a remote store moves at the same time. Each move is a copy on the server."""
WAITING = f"{MAKING}/metadata"
"""Folder for new metadata files until all of them are written."""


class MissingShardError(UserError):
    """A shard does not exist, or was damaged and has been deleted. It can be made again."""


@dataclass
class _Contents:
    """Content of the new manifest, and the file moves that it needs."""

    plan: Plan
    state: State
    shards: list[ShardEntry] = field(default_factory=list)
    metadata: list[FileEntry] = field(default_factory=list)
    environments: list[dict[str, str]] = field(default_factory=list)
    executions: list[dict[str, Any]] = field(default_factory=list)
    moves: list[tuple[str, str]] = field(default_factory=list)

    def add(self, shard: int, facts: dict[str, Any]) -> None:
        """Adds a new shard, given the facts of its sidecar."""
        split, sha256 = self.plan.recipe.split, facts["sha256"]
        self.shards.append(
            ShardEntry(
                name=shard_name(split, shard),
                num_samples=self.plan.shard_length(shard),
                num_bytes=facts["num_bytes"],
                sha256=sha256,
                environment=_position(self.environments, facts["environment"]),
                execution=_position(self.executions, facts["execution"]),
                verdicts=known_fields(Verdicts, facts["verdicts"]),
                changes=facts["changes"],
            )
        )
        self.moves.append((tar_name(self.plan, shard, sha256), shard_name(split, shard)))

    def write_metadata(self, number: int, tables: list[pa.Table]) -> None:
        """Writes one metadata file with one row group per shard."""
        buffer = io.BytesIO()
        with pq.ParquetWriter(buffer, METADATA_SCHEMA) as writer:
            for table in tables:
                writer.write_table(table, row_group_size=1 << 30)
        name, content = metadata_name(self.plan.recipe.split, number), buffer.getvalue()
        waiting = f"{WAITING}/{name.rpartition('/')[2]}"
        self.state.storage.write(waiting, content)
        self.moves.append((waiting, name))
        self.metadata.append(FileEntry(name=name, num_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()))

    def manifest(self) -> Manifest:
        recipe = self.plan.recipe
        return Manifest(
            recipe=recipe.to_dict(),
            recipe_hash=recipe.hash,
            split=recipe.split,
            image_format=recipe.image_format,
            label_names=recipe.label_names,
            num_rounds=self.plan.num_rounds,
            is_synthetic=engine(recipe.engine).IS_SYNTHETIC,
            environments=self.environments,
            executions=self.executions,
            shards=self.shards,
            metadata=self.metadata,
        )


def finalize(plan: Plan, state: State, text: CardText = CardText()) -> Manifest:
    """Turns an output whose shards are all made into a finished clone. Afterwards, `clean_up` deletes remaining files.

    Raises:
        MissingShardError: a shard is missing, or its sidecar is damaged; the clone was not changed.
        UserError: the metadata of an earlier shard is damaged; the clone was not changed.
    """
    storage = state.storage
    manifest, moves = _collect(plan, state)
    storage.write(FINALIZING, b'{"num_rounds": %d}' % plan.num_rounds)
    # Readers must see a growing clone as unfinished until its new manifest is written.
    if storage.exists(MANIFEST):
        storage.move(MANIFEST, OLD_MANIFEST)
    _move_all(state, moves)
    if plan.recipe.prompts:
        storage.write(PROMPTS, prompt_file_of(plan.recipe.prompts))
    storage.write(TIMM_INDEX, timm_index(manifest))
    storage.write(CARD, clone_card(storage, manifest, text))
    # Otherwise the temporary files may belong to runs that make a longer clone.
    if state.is_last(plan):
        storage.remove_temporaries()
    storage.write(MANIFEST, manifest.to_json())
    return manifest


def clean_up(plan: Plan, state: State, kept: Collection[str]) -> None:
    """Deletes the files in `_making` of a finished clone, except `kept`, the heartbeat file of this run.

    If a longer clone is being made in the same output, its shards stay, and so do all sidecars: they tell its runs which
    shards are finished.
    """
    storage = state.storage
    spared = {FINALIZING, *kept}
    if state.is_last(plan):
        # Deleted first: a run that finds no target makes nothing more.
        storage.remove(TARGET)
        storage.remove_all([name for name in storage.names(MAKING) if name not in spared])
    else:
        stems = {sidecar_name(plan, shard).removesuffix(".parquet") for shard in range(plan.num_shards)}
        ours = [name for name in storage.names(MAKING) if _stem_of_tar(name) in stems or name.startswith(WAITING)]
        storage.remove_all([name for name in [*ours, OLD_MANIFEST] if name not in spared])
    # Deleted last: while this file exists, a rerun deletes what a killed run has left.
    storage.remove(FINALIZING)


def _collect(plan: Plan, state: State) -> tuple[Manifest, list[tuple[str, str]]]:
    """Reads every sidecar once, and writes metadata to a folder that no reader uses."""
    found = _Contents(plan, state)
    kept, sizes = state.kept(plan), state.storage.sizes()
    if state.old:
        found.environments, found.executions = [*state.old.environments], [*state.old.executions]
    for number in range(-(-plan.num_shards // SHARDS_PER_METADATA_FILE)):
        first = number * SHARDS_PER_METADATA_FILE
        stop = min(first + SHARDS_PER_METADATA_FILE, plan.num_shards)
        found.shards += kept[first:stop]
        if state.old and stop <= len(kept) and number < len(state.old.metadata):
            found.metadata.append(state.old.metadata[number])
            continue
        tables = _kept_tables(plan, state, number, len(kept[first:stop])) if first < len(kept) else []
        new = range(first + len(tables), stop)
        for shard, sidecar in zip(
            new,
            state.storage.each(lambda shard: read_sidecar(plan, shard, state.storage), new, also_on_disk=True),
            strict=True,
        ):
            if sidecar is None or not _has_tar(plan, shard, sidecar[0], sizes):
                # A sidecar that exists is damaged.
                state.storage.remove(sidecar_name(plan, shard))
                raise MissingShardError(
                    f"shard {shard} of '{state.storage.root}' is missing; run 'fakeit-build make' again"
                )
            found.add(shard, sidecar[0])
            tables.append(sidecar[1])
        found.write_metadata(number, tables)
    return found.manifest(), found.moves


def _has_tar(plan: Plan, shard: int, facts: dict[str, Any], sizes: dict[str, int]) -> bool:
    """Whether the tar of a sidecar exists with the right size, under its temporary or its final name."""
    waiting = sizes.get(tar_name(plan, shard, facts["sha256"]), sizes.get(shard_name(plan.recipe.split, shard)))
    return bool(waiting == facts["num_bytes"])


def _kept_tables(plan: Plan, state: State, number: int, num_shards: int) -> list[pa.Table]:
    """Returns the metadata of the shards that an earlier clone already has in one metadata file, a table per shard."""
    name = metadata_name(plan.recipe.split, number)
    try:
        file = pq.ParquetFile(io.BytesIO(state.storage.read(name)))
        return [file.read_row_group(shard, METADATA_SCHEMA.names) for shard in range(num_shards)]
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"'{state.storage.path(name)}' cannot be read ({error}), and the clone cannot grow without it; restore it"
        ) from None


def _position(items: list[dict[str, Any]], item: dict[str, Any]) -> int:
    if item not in items:
        items.append(item)
    return items.index(item)


def _stem_of_tar(name: str) -> str:
    """Returns the prefix of a tar's name that identifies the shard; an empty text for other files."""
    return name.rpartition("-")[0] if name.endswith(".tar") else ""


def _move_all(state: State, moves: list[tuple[str, str]]) -> None:
    def move(names: tuple[str, str]) -> None:
        try:
            state.storage.move(*names)
        except FileNotFoundError:
            # Another run that finalizes at the same time may have moved the file.
            if not state.storage.exists(names[1]):
                raise

    with ThreadPoolExecutor(1 if state.storage.is_local else NUM_MOVERS) as pool:
        for _ in pool.map(move, moves):
            pass
