"""The last step of making: metadata, shards moved into place, timm's index, the card, and `clone.json` at the very end.

Killed at any point and run again, it ends in the same files.
"""

import hashlib
import io

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
from builders.making.output import FINALISING, OLD_MANIFEST, FinishedShard, Output
from builders.making.shard import has_sidecar
from builders.publishing.card import clone_card


def finalise(output: Output) -> Manifest:
    """Turns an output whose shards are all made into a finished clone.

    Raises:
        UserError: a shard is missing, or the metadata of an earlier one.
    """
    plan, storage = output.plan, output.storage
    shards = [output.finished_shard(shard) for shard in range(plan.num_shards)]
    if not all(shards):
        raise UserError(f"shard {shards.index(None)} of '{storage.root}' is not there; run 'fakeit-build make' again")
    made = [shard for shard in range(plan.num_shards) if has_sidecar(plan, shard, storage)]
    _check_metadata_of_kept_shards(output, made)
    storage.write(FINALISING, b"")
    if storage.exists(MANIFEST):  # a clone that grows is unfinished until its new manifest is there
        storage.move(MANIFEST, OLD_MANIFEST)
    metadata = _write_metadata(output, made)
    for shard in made:
        tar, _ = making_names(plan.recipe.split, shard)
        if storage.exists(tar):
            storage.move(tar, shard_name(plan.recipe.split, shard))
    manifest = _build_manifest(output, [shard for shard in shards if shard], metadata)
    storage.write(TIMM_INDEX, timm_index(manifest))
    storage.write(CARD, clone_card(storage, manifest))
    storage.remove_temporaries()
    storage.write(MANIFEST, manifest.to_json())
    for name in storage.names(MAKING):
        if name != FINALISING:  # goes last: while it is there, a rerun removes what a kill left
            storage.remove(name)
    storage.remove_folder(MAKING)
    return manifest


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
    return [_write_metadata_file(output, number) if number in changed else kept[number] for number in range(num_files)]


def _write_metadata_file(output: Output, number: int) -> FileEntry:
    """One metadata file, a row group for each of its shards."""
    plan, storage = output.plan, output.storage
    first = number * SHARDS_PER_METADATA_FILE
    shards = range(first, min(first + SHARDS_PER_METADATA_FILE, plan.num_shards))
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, METADATA_SCHEMA) as writer:
        for shard in shards:
            writer.write_table(output.metadata_rows(shard), row_group_size=1 << 30)
    name, content = metadata_name(plan.recipe.split, number), buffer.getvalue()
    storage.write(name, content)
    return FileEntry(name=name, num_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
