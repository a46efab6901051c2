"""Making one shard: its samples are painted by an engine, encoded and written in their order beside the next batch.

Invariant: a shard is finished exactly when its sidecar is there, and then the tar that it names is, too. The sidecar is its
metadata table, with what finalising needs in the table's own metadata, so that no shard is read again.
"""

import io
import json
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from builders.format.manifest import SafetyCounts, making_stem, shard_name
from builders.format.schema import METADATA_SCHEMA
from builders.format.shards import ShardWriter
from builders.format.storage import Storage
from builders.images.encode import encode_image
from builders.images.read import read_image_header
from builders.making.engines.base import Paint
from builders.making.painting import PaintedSample, paint_samples
from builders.making.plan import Plan, Sample
from builders.making.recipe import Recipe

MAX_BATCHES_WAITING = 2
"""Painted batches that may wait for the encoder before painting waits for it."""

Encoded = tuple[PaintedSample, bytes, dict[str, Any]]


def sample_fields(recipe: Recipe, made: PaintedSample, size: tuple[int, int]) -> dict[str, Any]:
    """The json of a sample but for the picture's sha256; `size` is (width, height)."""
    return {
        **planned_fields(recipe, made.sample),
        "width": size[0],
        "height": size[1],
        "dtype": made.painted.dtype or recipe.dtype,
        "batch_slot": made.slot,
        "nsfw": made.painted.nsfw,
    }


def planned_fields(recipe: Recipe, sample: Sample) -> dict[str, Any]:
    """What the plan alone says of a sample's json."""
    return {
        "prompt": sample.prompt,
        "negative_prompt": recipe.negative_prompt,
        "class_name": sample.class_name,
        "wnid": sample.wnid,
        "background": sample.background,
        "index": sample.index,
        "attempt": sample.attempt,
        "seed": sample.seed,
        "guidance_scale": recipe.guidance_scale,
        "num_inference_steps": recipe.num_inference_steps,
        "model": recipe.model,
        "revision": recipe.revision,
        "scheduler": recipe.scheduler,
        "batch_size": recipe.batch_size,
    }


def encode_sample(recipe: Recipe, made: PaintedSample) -> tuple[bytes, dict[str, Any]]:
    """The picture's file and its json fields."""
    painted = made.painted
    if isinstance(painted.picture, bytes):
        header = read_image_header(painted.picture)
        return painted.picture, sample_fields(recipe, made, (header.width, header.height))
    height, width, _ = painted.picture.shape
    picture = encode_image(painted.picture, recipe.image_format, recipe.image_quality)
    return picture, sample_fields(recipe, made, (width, height))


class _InOrder:
    """Writes samples in their order; those that are ready too early wait, as files and not as pixels."""

    def __init__(self, writer: ShardWriter) -> None:
        self._writer = writer
        self._ready: dict[int, Encoded] = {}
        self._num_written = 0

    def write(self, encoded: Encoded) -> None:
        self._ready[encoded[0].position] = encoded
        while self._num_written in self._ready:
            made, picture, fields = self._ready.pop(self._num_written)
            self._writer.write(made.sample.key, made.sample.label, picture, fields)
            self._num_written += 1


def make_shard(
    plan: Plan,
    shard: int,
    paint: Paint,
    environment: dict[str, str],
    storage: Storage,
    on_images: Callable[[int], object],
) -> None:
    """Paints and writes one shard and its sidecar into `_making`; calls `on_images` with each batch's size."""
    recipe = plan.recipe
    scratch = storage.scratch(f"{_stem(plan, shard)}.tar")
    writer = ShardWriter(scratch, recipe.image_format)
    in_order = _InOrder(writer)
    changes: Counter[str] = Counter()

    def write(batch: list[PaintedSample]) -> None:
        for made in batch:
            in_order.write((made, *encode_sample(recipe, made)))
            changes.update([made.painted.change] if made.painted.change else [])
        on_images(len(batch))

    try:
        with ThreadPoolExecutor(1) as encoder:
            waiting: deque[Future[None]] = deque()
            for batch in paint_samples(plan, plan.shard_samples(shard), paint):
                waiting.append(encoder.submit(write, batch))
                if len(waiting) > MAX_BATCHES_WAITING:
                    waiting.popleft().result()
            for future in waiting:
                future.result()
        rows, sha256 = writer.close()
        num_bytes = scratch.stat().st_size
        storage.put(scratch, tar_name(plan, shard, sha256))
    except BaseException:
        writer.abandon()
        scratch.unlink(missing_ok=True)
        raise
    facts = {
        "recipe_hash": recipe.hash,
        "rounds": [plan.shard_rounds(shard).start, plan.shard_rounds(shard).stop],
        "num_bytes": num_bytes,
        "sha256": sha256,
        "environment": environment,
        "safety": asdict(SafetyCounts.of(rows)),
        "changes": dict(sorted(changes.items())),
    }
    storage.write(sidecar_name(plan, shard), _sidecar(rows, shard_name(recipe.split, shard), facts))


def sidecar_name(plan: Plan, shard: int) -> str:
    """Of a shard while the clone is being made."""
    return f"{_stem(plan, shard)}.parquet"


def tar_name(plan: Plan, shard: int, sha256: str) -> str:
    """The same of its tar, which only the sidecar with its sha256 vouches for: on other hardware a shard may come out
    otherwise, and two makers must not mix."""
    return f"{_stem(plan, shard)}-{sha256[:16]}.tar"


def _stem(plan: Plan, shard: int) -> str:
    return making_stem(plan.recipe.split, shard, plan.recipe.hash, plan.shard_end(shard))


def read_sidecar(plan: Plan, shard: int, storage: Storage) -> tuple[dict[str, Any], pa.Table] | None:
    """A finished shard's facts and metadata rows; None where it is not made yet, not for this plan, or damaged."""
    try:
        file = _open_sidecar(plan, shard, storage)
        facts = _facts(plan, shard, file)
        return (facts, file.read().replace_schema_metadata(None)) if file and facts else None
    except (pa.ArrowException, OSError):
        return None


def has_sidecar(plan: Plan, shard: int, storage: Storage) -> bool:
    """Whether a shard was made for this plan and is not yet part of a finished clone; its rows are not decoded."""
    return _facts(plan, shard, _open_sidecar(plan, shard, storage)) is not None


def _open_sidecar(plan: Plan, shard: int, storage: Storage) -> pq.ParquetFile | None:
    try:
        return pq.ParquetFile(io.BytesIO(storage.read(sidecar_name(plan, shard))))
    except (pa.ArrowException, OSError):
        return None  # not there, or damaged, so the shard is made again


def _facts(plan: Plan, shard: int, file: pq.ParquetFile | None) -> dict[str, Any] | None:
    try:
        facts: dict[str, Any] = json.loads(file.schema_arrow.metadata[b"fakeit"]) if file else {}
        rounds = plan.shard_rounds(shard)
        is_ours = facts["recipe_hash"] == plan.recipe.hash and facts["rounds"] == [rounds.start, rounds.stop]
    except (KeyError, TypeError, ValueError):
        return None
    return facts if is_ours and {"safety", "changes"} <= facts.keys() else None


def _sidecar(rows: list[dict[str, Any]], shard: str, facts: dict[str, Any]) -> bytes:
    table = pa.Table.from_pylist([{**row, "shard": shard} for row in rows], schema=METADATA_SCHEMA)
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"fakeit": json.dumps(facts)}), buffer)
    return buffer.getvalue()
