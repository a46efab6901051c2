"""The last step of making: metadata, shards moved into place, timm's index, the card, and `clone.json` at the very end.

Killed at any point and run again, it ends in the same files.
"""

import hashlib
import io
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial

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
    making_names,
    metadata_name,
    shard_name,
    timm_index,
)
from builders.format.schema import METADATA_SCHEMA
from builders.format.storage import Storage
from builders.making.output import FINALISING, OLD_MANIFEST, FinishedShard, Output
from builders.publishing.card import clone_card

NUM_MOVERS, NUM_WRITERS, READERS_PER_WRITER = 32, 8, 4
"""Threads: most of their time they wait for the store, or for Parquet, which lets the others run."""


def finalise(output: Output) -> Manifest:
    """Turns an output whose shards are all made into a finished clone; `clean_up` takes away what is left.

    Two at once end in the same files, too. Memory holds a line for each shard, and one metadata file.

    Raises:
        UserError: a shard is missing or its sidecar damaged, or the metadata of an earlier one.
    """
    plan, storage = output.plan, output.storage
    shards: list[FinishedShard] = []
    for number, shard in enumerate(output.finished_shards()):
        if shard is None:
            storage.remove(making_names(plan.recipe.split, number)[1])  # if it is there, it is damaged
            raise UserError(f"shard {number} of '{storage.root}' is not there; run 'fakeit-build make' again")
        shards.append(shard)
    there = set(storage.names(MAKING))
    names = [making_names(plan.recipe.split, shard) for shard in range(plan.num_shards)]
    made = [shard for shard, (_, sidecar) in enumerate(names) if sidecar in there]
    _check_metadata_of_kept_shards(output, made)
    storage.write(FINALISING, b"")
    if storage.exists(MANIFEST):  # a clone that grows is unfinished until its new manifest is there
        storage.move(MANIFEST, OLD_MANIFEST)
    metadata = _write_metadata(output, made)
    _move_all(
        storage, [(names[shard][0], shard_name(plan.recipe.split, shard)) for shard in made if names[shard][0] in there]
    )
    manifest = _build_manifest(output, shards, metadata)
    storage.write(TIMM_INDEX, timm_index(manifest))
    storage.write(CARD, clone_card(storage, manifest))
    storage.remove_temporaries()
    storage.write(MANIFEST, manifest.to_json())
    return manifest


def clean_up(storage: Storage, kept: Collection[str]) -> None:
    """Removes what making left behind, once the clone is whole, but for some files: the finaliser's own claim, in whose shelter
    this happens."""
    storage.remove_all([name for name in storage.names(MAKING) if name != FINALISING and name not in kept])
    storage.remove(FINALISING)  # last: while it is there, a rerun removes what a kill left


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
    with ThreadPoolExecutor(NUM_WRITERS) as pool:
        written = pool.map(partial(_write_metadata_file, output), sorted(changed))
        new = dict(zip(sorted(changed), written, strict=True))
    return [new[number] if number in new else kept[number] for number in range(num_files)]


def _write_metadata_file(output: Output, number: int) -> FileEntry:
    """One metadata file, a row group for each of its shards."""
    plan, storage = output.plan, output.storage
    first = number * SHARDS_PER_METADATA_FILE
    shards = range(first, min(first + SHARDS_PER_METADATA_FILE, plan.num_shards))
    buffer = io.BytesIO()
    with ThreadPoolExecutor(READERS_PER_WRITER) as pool, pq.ParquetWriter(buffer, METADATA_SCHEMA) as writer:
        for rows in pool.map(output.metadata_rows, shards):
            writer.write_table(rows, row_group_size=1 << 30)
    name, content = metadata_name(plan.recipe.split, number), buffer.getvalue()
    storage.write(name, content)
    return FileEntry(name=name, num_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
