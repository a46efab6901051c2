"""Makes one shard: while a device generates a batch, threads check, encode and write the batches before it, in order.

Invariant: a shard is finished exactly when its sidecar exists, and then the tar that the sidecar names exists, too.

The sidecar is the shard's metadata table. The table's own metadata holds what finalizing needs, so that no shard is
read again. A finished tar that a store did not accept stays in the scratch folder, where the next attempt on this
machine finds it.
"""

import hashlib
import io
import json
import os
import tempfile
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from builders.engines.base import Generate, engine, session
from builders.format.manifest import Verdicts
from builders.format.names import shard_name, staging_stem
from builders.format.schema import METADATA_SCHEMA
from builders.format.tar_shard import ShardWriter
from builders.generation.generate_samples import GeneratedSample, generate_samples
from builders.images.encode import encode_image
from builders.images.read import read_image_header
from builders.planning.plan import Plan
from builders.recipes.checks import least_scores
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
from builders.recipes.sample import Sample
from builders.storage.base import Storage
from builders.storage.local import is_dead_temporary

MAX_BATCHES_WAITING = 2
"""Generated batches that may wait for the encoder before generating waits for it."""
FACTS = {"recipe_hash", "rounds", "num_bytes", "sha256", "environment", "execution", "verdicts", "changes"}
"""Keys of the facts about a shard that its sidecar holds besides the rows."""

Encoded = tuple[GeneratedSample, bytes, dict[str, Any]]


def planned_fields(recipe: Recipe, sample: Sample) -> dict[str, Any]:
    """Returns the fields of a sample's json that follow from the plan alone."""
    return {
        "prompt": sample.prompt,
        "negative_prompt": recipe.negative_prompt,
        "class_name": sample.class_name,
        "wnid": sample.wnid,
        "background": sample.background,
        "index": sample.index,
        "attempt": sample.attempt,
        "seed": sample.seed,
        "model": recipe.model,
        "revision": recipe.revision,
        "adapters": "",
        "prompt_index": sample.prompt_index,
        **engine(recipe.engine).json_fields(recipe),
    }


def encode_sample(recipe: Recipe, execution: Execution, made: GeneratedSample) -> tuple[bytes, dict[str, Any]]:
    """Returns the image file of a sample, and its json fields without the file's sha256."""
    generated = made.generated
    if isinstance(generated.image, bytes):
        content, header = generated.image, read_image_header(generated.image)
        width, height = header.width, header.height
    else:
        height, width, _ = generated.image.shape
        content = encode_image(generated.image, recipe.image_format, recipe.image_quality)
    return content, {
        **planned_fields(recipe, made.sample),
        "width": width,
        "height": height,
        "vae_dtype": generated.vae_dtype,
        "batch_size": execution.batch_size,
        "batch_slot": made.slot,
        "nsfw": generated.nsfw,
        "broken": int(generated.is_broken),
        "check_score": made.score,
        "verdict": made.verdict,
    }


class _InOrder:
    """Writes samples in order; a sample that is ready too early waits as an encoded file, not as pixels."""

    def __init__(self, writer: ShardWriter) -> None:
        self._writer = writer
        self._ready: dict[int, Encoded] = {}
        self._num_written = 0

    def write(self, encoded: Encoded) -> None:
        self._ready[encoded[0].position] = encoded
        while self._num_written in self._ready:
            made, content, fields = self._ready.pop(self._num_written)
            self._writer.write(made.sample.key, made.sample.label, content, fields)
            self._num_written += 1


def generate_shard_tar(
    plan: Plan, shard: int, generate: Generate, execution: Execution, storage: Storage, scratch: str = ""
) -> Iterator[tuple[int, int, int, int]]:
    """Makes one shard; yields after each batch the numbers of images kept, of first attempts, and of those that are
    broken or that a check rejects.

    On a local disk the shard is finished at the end. For a remote store, tar and sidecar stay in the folder `scratch`,
    and `upload_finished_tar` finishes the shard.

    Raises:
        ShardError: images of the shard cannot be read.
    """
    recipe = plan.recipe
    folder = "" if storage.is_local else str(scratch_folder(storage, scratch))
    temporary = storage.scratch(f"{_stem(plan, shard)}.tar", folder)
    writer = ShardWriter(temporary, recipe.image_format)
    in_order = _InOrder(writer)
    changes: Counter[str] = Counter()

    def write(batch: list[GeneratedSample]) -> None:
        for made in batch:
            in_order.write((made, *encode_sample(recipe, execution, made)))
            changes.update([made.generated.change] if made.generated.change else [])

    try:
        with session(generate), ThreadPoolExecutor(1) as host, ThreadPoolExecutor(1) as encoder:
            waiting: deque[Future[None]] = deque()
            for batch in generate_samples(plan, plan.shard_samples(shard), generate, execution.batch_size, host):
                waiting.append(encoder.submit(write, batch.kept))
                if len(waiting) > MAX_BATCHES_WAITING:
                    waiting.popleft().result()
                yield len(batch.kept), batch.num_first, batch.num_broken, batch.num_low
            for future in waiting:
                future.result()
        rows, sha256 = writer.close()
        facts = {
            "recipe_hash": recipe.hash,
            "rounds": [plan.shard_rounds(shard).start, plan.shard_rounds(shard).stop],
            "num_bytes": temporary.stat().st_size,
            "sha256": sha256,
            "environment": generate.environment,
            "execution": asdict(execution),
            "verdicts": asdict(Verdicts.of(rows, least_scores(recipe.checks))),
            "changes": dict(sorted(changes.items())),
        }
        sidecar = _sidecar(rows, shard_name(recipe.split, shard), facts)
        if storage.is_local:
            storage.put(temporary, tar_name(plan, shard, sha256))
            storage.write(sidecar_name(plan, shard), sidecar)
        else:
            kept = temporary.with_name(PurePosixPath(tar_name(plan, shard, sha256)).name)
            kept.with_suffix(".parquet").write_bytes(sidecar)
            temporary.replace(kept)
    except BaseException:
        writer.abandon()
        temporary.unlink(missing_ok=True)
        raise


def upload_finished_tar(plan: Plan, shard: int, storage: Storage, scratch: str = "") -> bool:
    """Uploads a shard's finished tar from this machine's scratch folder to a remote store, then its sidecar.

    Returns:
        False if there is no finished tar.

    Raises:
        UnreachableError: the store does not answer; the tar stays in the scratch folder.
    """
    for kept in sorted(scratch_folder(storage, scratch).glob(f"{PurePosixPath(_stem(plan, shard)).name}-*.tar")):
        beside = kept.with_suffix(".parquet")
        try:
            sidecar = beside.read_bytes()
            facts = _facts(plan, shard, pq.ParquetFile(io.BytesIO(sidecar)))
        except (OSError, pa.ArrowException):
            continue
        if facts and kept.stat().st_size == facts["num_bytes"]:
            storage.upload(kept, tar_name(plan, shard, facts["sha256"]))
            storage.write(sidecar_name(plan, shard), sidecar)
            # Deleted only now: if the store fails between the two uploads, the next attempt finds both files again.
            for path in (kept, beside):
                path.unlink(missing_ok=True)
            return True
    return False


def scratch_folder(storage: Storage, scratch: str) -> Path:
    """Returns the folder on this machine in which an output's tars are written on their way to a remote store.

    Each output has its own folder within `scratch`, which defaults to a folder of this user in the temporary directory.
    """
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
    base = Path(scratch or f"{tempfile.gettempdir()}/fakeit-{user}")
    return base / hashlib.sha256(storage.root.encode()).hexdigest()[:16]


def sweep_scratch(storage: Storage, scratch: str, *, is_finished: bool = False) -> None:
    """Deletes the half-written files of an output that killed processes left; for a finished clone, whole tars, too."""
    for path in [] if storage.is_local else scratch_folder(storage, scratch).glob("*"):
        if is_dead_temporary(path) or (is_finished and not path.name.endswith(".tmp")):
            path.unlink(missing_ok=True)


def sidecar_name(plan: Plan, shard: int) -> str:
    """Returns the name of a shard's sidecar while the clone is being made."""
    return f"{_stem(plan, shard)}.parquet"


def tar_name(plan: Plan, shard: int, sha256: str) -> str:
    """Returns the name of a shard's tar while the clone is being made.

    It has the tar's hash: two machines may produce different bytes, and a sidecar names exactly one tar.
    """
    return f"{_stem(plan, shard)}-{sha256[:16]}.tar"


def _stem(plan: Plan, shard: int) -> str:
    return staging_stem(plan.recipe.split, shard, plan.recipe.hash, plan.shard_end(shard))


def read_sidecar(plan: Plan, shard: int, storage: Storage) -> tuple[dict[str, Any], pa.Table] | None:
    """Returns a finished shard's facts and metadata rows; None if it is missing, damaged, or of another plan."""
    try:
        file = pq.ParquetFile(io.BytesIO(storage.read(sidecar_name(plan, shard))))
        facts = _facts(plan, shard, file)
        return (facts, file.read(METADATA_SCHEMA.names).replace_schema_metadata(None)) if facts else None
    except (pa.ArrowException, OSError):
        return None


def _facts(plan: Plan, shard: int, file: pq.ParquetFile) -> dict[str, Any] | None:
    try:
        facts: dict[str, Any] = json.loads(file.schema_arrow.metadata[b"fakeit"])
        rounds = plan.shard_rounds(shard)
        is_ours = facts["recipe_hash"] == plan.recipe.hash and facts["rounds"] == [rounds.start, rounds.stop]
    except (KeyError, TypeError, ValueError):
        return None
    return facts if is_ours and facts.keys() >= FACTS else None


def _sidecar(rows: list[dict[str, Any]], shard: str, facts: dict[str, Any]) -> bytes:
    table = pa.Table.from_pylist([{**row, "shard": shard} for row in rows], schema=METADATA_SCHEMA)
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"fakeit": json.dumps(facts)}), buffer)
    return buffer.getvalue()
