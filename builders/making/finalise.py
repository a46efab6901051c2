"""The last step of making: metadata, shards moved into place, timm's index, the card, and `clone.json` at the very end.

Killed at any point and run again, it ends in the same files.
"""

import hashlib
import io
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow.parquet as pq

from builders.format.errors import UserError
from builders.format.manifest import (
    CARD,
    MAKING,
    MANIFEST,
    SHARDS_PER_METADATA_FILE,
    TIMM_INDEX,
    FileEntry,
    Manifest,
    ShardEntry,
    metadata_name,
    shard_name,
    timm_index,
)
from builders.format.schema import METADATA_SCHEMA
from builders.format.storage import Storage
from builders.making.output import (
    FINALISING,
    OLD_MANIFEST,
    TARGET,
    FinishedShard,
    Output,
    begin_finalising,
    is_target,
)
from builders.making.shard import sidecar_name, tar_name
from builders.publishing.card import clone_card
from builders.publishing.card_edits import CardText

NUM_MOVERS = 32
"""Threads that wait for the store."""


class MissingShardError(UserError):
    """A shard is not there, or was damaged and is gone; it can be made again."""


def finalise(output: Output, text: CardText = CardText()) -> Manifest:
    """Turns an output whose shards are all made into a finished clone; `clean_up` takes away what is left.

    Two at once end in the same files, too. Memory holds a line for each shard, and one metadata file.

    Raises:
        MissingShardError: a shard is missing or its sidecar damaged.
        UserError: the metadata of an earlier shard is.
    """
    plan, storage = output.plan, output.storage
    has_begun = storage.exists(FINALISING)
    begin_finalising(plan, storage)
    made = sorted(output.made_shards(range(plan.num_shards)))
    try:
        shards = list(_whole_shards(output))
        _check_metadata_of_kept_shards(output, made)
    except UserError:
        if not has_begun:  # nothing is in place yet, so the mark may go
            storage.remove(FINALISING)
        raise
    if storage.exists(MANIFEST):  # a clone that grows is unfinished until its new manifest is there
        storage.move(MANIFEST, OLD_MANIFEST)
    metadata = _write_metadata(output, made)
    split = plan.recipe.split
    _move_all(storage, [(tar_name(plan, shard, shards[shard].sha256), shard_name(split, shard)) for shard in made])
    manifest = _build_manifest(output, shards, metadata)
    storage.write(TIMM_INDEX, timm_index(manifest))
    storage.write(CARD, clone_card(storage, manifest, text))
    if is_target(plan, storage):  # else they may be of runs that make a longer clone
        storage.remove_temporaries()
    storage.write(MANIFEST, manifest.to_json())
    return manifest


def _whole_shards(output: Output) -> Iterator[FinishedShard]:
    for number, shard in enumerate(output.finished_shards()):
        if shard is None:
            name = sidecar_name(output.plan, number)
            if output.storage.exists(name) and output.finished_shard(number) is None:  # it is damaged
                output.storage.remove(name)
            raise MissingShardError(
                f"shard {number} of '{output.storage.root}' is not there; run 'fakeit-build make' again"
            )
        yield shard


def clean_up(output: Output, kept: Collection[str]) -> None:
    """Removes what making left behind, once the clone is whole, but for some files: the finaliser's own claim, in whose shelter
    this happens. What runs have made for a longer clone stays where one is being made."""
    plan, storage = output.plan, output.storage
    spared = {FINALISING, *kept}
    if is_target(plan, storage) or not storage.exists(TARGET):
        # First: without it no run takes a shard whose sidecar is gone for one that is to be made.
        storage.remove(TARGET)
        storage.remove_all([name for name in storage.names(MAKING) if name not in spared])
    else:
        stems = {sidecar_name(plan, shard).removesuffix(".parquet") for shard in range(plan.num_shards)}
        ours = [name for name in storage.names(MAKING) if _stem_of(name) in stems]
        storage.remove_all([name for name in [*ours, OLD_MANIFEST] if name not in spared])
    storage.remove(FINALISING)  # last: while it is there, a rerun removes what a kill left


def _stem_of(name: str) -> str:
    """Of a sidecar's or a tar's name."""
    return name.removesuffix(".parquet") if name.endswith(".parquet") else name.rpartition("-")[0]


def _move_all(storage: Storage, moves: list[tuple[str, str]]) -> None:
    """Moves shards into place; of an object store many at a time, for each is a copy there."""
    if storage.is_local:
        for source, target in moves:
            _move(storage, source, target)
        return
    with ThreadPoolExecutor(NUM_MOVERS) as pool:
        for _ in pool.map(lambda move: _move(storage, *move), moves):
            pass


def _move(storage: Storage, source: str, target: str) -> None:
    try:
        storage.move(source, target)
    except FileNotFoundError:
        if not storage.exists(target):  # another finaliser has moved it
            raise


def _build_manifest(output: Output, shards: list[FinishedShard], metadata: list[FileEntry]) -> Manifest:
    recipe = output.plan.recipe
    environments: list[dict[str, str]] = []
    for shard in shards:
        if shard.environment not in environments:
            environments.append(shard.environment)
    return Manifest(
        recipe=recipe.to_dict(),
        recipe_hash=recipe.hash,
        split=recipe.split,
        image_format=recipe.image_format,
        label_names=recipe.label_names,
        num_rounds=output.plan.num_rounds,
        environments=environments,
        shards=[
            ShardEntry(
                name=shard.name,
                num_samples=shard.num_samples,
                num_bytes=shard.num_bytes,
                sha256=shard.sha256,
                environment=environments.index(shard.environment),
                safety=shard.safety,
                changes=shard.changes,
            )
            for shard in shards
        ],
        metadata=metadata,
    )


def _check_metadata_of_kept_shards(output: Output, made: list[int]) -> None:
    """Reads the rows of kept shards that share a metadata file with new ones, before anything is put in place."""
    new = set(made)
    for number in {shard // SHARDS_PER_METADATA_FILE for shard in made}:
        first = number * SHARDS_PER_METADATA_FILE
        for shard in range(first, min(first + SHARDS_PER_METADATA_FILE, output.plan.num_shards)):
            if shard not in new:
                output.metadata_rows(shard)


def _write_metadata(output: Output, made: list[int]) -> list[FileEntry]:
    """All metadata files; those without new shards stay as they are."""
    changed = {shard // SHARDS_PER_METADATA_FILE for shard in made}
    num_files = -(-output.plan.num_shards // SHARDS_PER_METADATA_FILE)
    kept = output.old.metadata if output.old else []
    return [_write_metadata_file(output, number) if number in changed else kept[number] for number in range(num_files)]


def _write_metadata_file(output: Output, number: int) -> FileEntry:
    """One metadata file, a row group for each of its shards."""
    plan, storage = output.plan, output.storage
    first = number * SHARDS_PER_METADATA_FILE
    shards = range(first, min(first + SHARDS_PER_METADATA_FILE, plan.num_shards))
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, METADATA_SCHEMA) as writer:
        for rows in storage.each(output.metadata_rows, shards, also_on_disk=True):
            writer.write_table(rows, row_group_size=1 << 30)
    name, content = metadata_name(plan.recipe.split, number), buffer.getvalue()
    storage.write(name, content)
    return FileEntry(name=name, num_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
