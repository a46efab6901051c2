"""The last step of making: metadata, shards moved into place, timm's index, the card, and `clone.json` at the very end.

Killed at any point and run again, it ends in the same files.
"""

import io

import pyarrow.parquet as pq

from builders.format.manifest import (
    CARD,
    MAKING,
    MANIFEST,
    SHARDS_PER_METADATA_FILE,
    TIMM_INDEX,
    Manifest,
    ShardEntry,
    making_names,
    metadata_name,
    timm_index,
)
from builders.format.schema import METADATA_SCHEMA
from builders.making.output import OLD_MANIFEST, FinishedShard, Output
from builders.publishing.card import render_card


def finalise(output: Output) -> Manifest:
    """Turns an output whose shards are all made into a finished clone."""
    plan, storage = output.plan, output.storage
    shards = [output.finished_shard(shard) for shard in range(plan.num_shards)]
    assert all(shards), "finalise needs every shard"
    manifest = _build_manifest(output, [shard for shard in shards if shard])
    if storage.exists(MANIFEST):  # a clone that grows is unfinished until its new manifest is there
        storage.move(MANIFEST, OLD_MANIFEST)
    for number in range(-(-plan.num_shards // SHARDS_PER_METADATA_FILE)):
        _write_metadata(output, number)
    for shard, entry in enumerate(manifest.shards):
        made, _ = making_names(plan.recipe.split, shard)
        if storage.exists(made):
            storage.move(made, entry.name)
    storage.write(TIMM_INDEX, timm_index(manifest))
    storage.write(CARD, render_card(manifest, plan.recipe).encode())
    storage.write(MANIFEST, manifest.to_json())
    storage.remove_folder(MAKING)
    return manifest


def _build_manifest(output: Output, shards: list[FinishedShard]) -> Manifest:
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
            )
            for shard in shards
        ],
    )


def _write_metadata(output: Output, number: int) -> None:
    """One metadata file, a row group for each of its shards; left alone where none of them is new."""
    plan, storage = output.plan, output.storage
    first = number * SHARDS_PER_METADATA_FILE
    shards = range(first, min(first + SHARDS_PER_METADATA_FILE, plan.num_shards))
    if not any(storage.exists(making_names(plan.recipe.split, shard)[1]) for shard in shards):
        return
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, METADATA_SCHEMA) as writer:
        for shard in shards:
            writer.write_table(output.metadata_rows(shard), row_group_size=1 << 30)
    storage.write(metadata_name(plan.recipe.split, number), buffer.getvalue())
