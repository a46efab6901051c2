"""Verifies that a clone is complete and correct: reads every shard once, and reports each fault with its shard and key.

Without `deep` it checks names, sizes, checksums, tar structure, keys, labels, json, the plan, image headers and hashes,
metadata, timm's index and the card. With `deep` it decodes every image as well. Several processes share the shards.
"""

import dataclasses
import hashlib
import itertools
import multiprocessing as mp
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import pyarrow as pa
import pyarrow.parquet as pq

from builders.card.render import card_faults
from builders.coordination.output import FINALIZING
from builders.engines.base import engine
from builders.errors import UserError
from builders.format.manifest import Manifest, read_manifest, timm_index
from builders.format.names import CARD, PROMPTS, SHARDS_PER_METADATA_FILE, TIMM_INDEX, metadata_name
from builders.planning.plan import Plan
from builders.prompts.prompt_table import check_prompts
from builders.recipes.recipe import recipe_from_dict
from builders.storage.base import Storage, open_storage
from builders.verification.verify_shard import Fault, ShardVerifier

BYTES_PER_WORKER = {False: 1 << 30, True: 1 << 27}
"""Bytes that make the start of a worker process worthwhile, by whether images are decoded."""

_verifier: ShardVerifier


def verify_clone(
    root: str,
    *,
    deep: bool = False,
    num_workers: int = 1,
    on_samples: Callable[[int], object] = lambda num_samples: None,
) -> Iterator[Fault]:
    """Yields all faults of a finished clone, in the order of its shards; memory does not grow with its size.

    Raises:
        UserError: there is no clone, it is unfinished, or its manifest cannot be read.
    """
    verifier = _open_verifier(root, deep)
    manifest, storage = verifier.manifest, verifier.storage
    if fault := _prompts_fault(verifier.plan, storage):
        yield fault
        return
    yield from _verify_files(manifest, verifier.plan, storage)
    there = [shard for shard, entry in enumerate(manifest.shards) if storage.exists(entry.name)]
    if len(there) < len(manifest.shards):
        on_samples(manifest.num_samples - sum(manifest.shards[shard].num_samples for shard in there))
    num_workers = min(num_workers, len(there), manifest.num_bytes // BYTES_PER_WORKER[deep])
    if num_workers <= 1:
        for shard in there:
            yield from verifier.verify(shard)
            on_samples(manifest.shards[shard].num_samples)
        return
    with ProcessPoolExecutor(num_workers, mp.get_context("spawn"), _start_worker, (root, deep)) as pool:
        waiting: deque[tuple[int, Future[list[Fault]]]] = deque()
        shards = iter(there)
        try:
            while True:
                for shard in itertools.islice(shards, 2 * num_workers - len(waiting)):
                    waiting.append((shard, pool.submit(_work, shard)))
                if not waiting:
                    return
                shard, future = waiting.popleft()
                try:
                    yield from future.result()
                except BrokenProcessPool:
                    raise UserError("a worker process died, perhaps out of memory; use fewer --workers") from None
                on_samples(manifest.shards[shard].num_samples)
        finally:
            pool.shutdown(cancel_futures=True)


def _open_verifier(root: str, deep: bool) -> ShardVerifier:
    storage = open_storage(root)
    manifest = read_manifest(storage)
    return ShardVerifier(manifest, Plan(recipe_from_dict(manifest.recipe), manifest.num_rounds), storage, deep)


def _prompts_fault(plan: Plan, storage: Storage) -> Fault | None:
    """Checks the clone's prompts against its recipe. Without them, nothing can be compared with the plan."""
    prompts = plan.recipe.prompts
    try:
        if prompts:
            check_prompts(prompts, storage.read(PROMPTS), PROMPTS)
    except FileNotFoundError:
        return Fault(PROMPTS, "missing; restore it, for nothing else was checked")
    except UserError as error:
        return Fault(PROMPTS, f"{error}; nothing else was checked")
    return None


def _start_worker(root: str, deep: bool) -> None:
    global _verifier
    _verifier = _open_verifier(root, deep)


def _work(shard: int) -> list[Fault]:
    return list(_verifier.verify(shard))


def _verify_files(manifest: Manifest, plan: Plan, storage: Storage) -> Iterator[Fault]:
    shards = {entry.name for entry in manifest.shards}
    num_metadata = -(-len(shards) // SHARDS_PER_METADATA_FILE)
    metadata = {metadata_name(manifest.split, number) for number in range(num_metadata)}
    there = set(storage.names("data")) | set(storage.names("metadata"))
    for name in sorted((shards | metadata) - there):
        yield Fault(name, "missing")
    for name in sorted(there - shards - metadata):
        yield Fault(name, "extra file that is not in clone.json")
    if [file.name for file in manifest.metadata] != sorted(metadata):
        yield Fault("clone.json", "the metadata files that it lists do not belong to its shards")
    for file in manifest.metadata:
        if file.name in there and hashlib.sha256(storage.read(file.name)).hexdigest() != file.sha256:
            yield Fault(file.name, "its sha256 differs from the one in clone.json")
    for number in range(num_metadata):
        if (name := metadata_name(manifest.split, number)) in there:
            yield from _verify_metadata(manifest, storage, name, number)
    if storage.exists(FINALIZING):
        yield Fault(FINALIZING, "left over from finalizing; run 'fakeit-build make' again")
    yield from _verify_manifest(manifest, plan)
    if not storage.exists(TIMM_INDEX):
        yield Fault(TIMM_INDEX, "missing")
    elif storage.read(TIMM_INDEX) != timm_index(manifest):
        yield Fault(TIMM_INDEX, "stale: it disagrees with clone.json")
    yield from _verify_card(manifest, storage)


def _verify_metadata(manifest: Manifest, storage: Storage, name: str, number: int) -> Iterator[Fault]:
    """Checks that a metadata file has exactly one row group for each of its shards."""
    first = number * SHARDS_PER_METADATA_FILE
    expected = [entry.num_samples for entry in manifest.shards[first : first + SHARDS_PER_METADATA_FILE]]
    try:
        with storage.open(name) as file:
            footer = pq.ParquetFile(file).metadata
    except (OSError, pa.ArrowException):
        return  # `ShardVerifier` reports it for each shard
    if [footer.row_group(row_group).num_rows for row_group in range(footer.num_row_groups)] != expected:
        yield Fault(name, "stale: its row groups do not match the shards that clone.json lists")


def _verify_manifest(manifest: Manifest, plan: Plan) -> Iterator[Fault]:
    recipe = plan.recipe
    if recipe.hash != manifest.recipe_hash:
        unknown = sorted(manifest.recipe.keys() - {f.name for f in dataclasses.fields(recipe)})
        newer = f"; it has fields of a newer fakeit ({', '.join(unknown)})" if unknown else ""
        yield Fault("clone.json", f"the recipe does not have the recorded hash{newer}")
    if manifest.is_synthetic != engine(recipe.engine).IS_SYNTHETIC:
        yield Fault("clone.json", f"it says is_synthetic {manifest.is_synthetic}, its recipe's engine says otherwise")
    if recipe.label_names != manifest.label_names:
        yield Fault("clone.json", "label names differ from the recipe's classes")
    if (recipe.split, recipe.image_format) != (manifest.split, manifest.image_format):
        yield Fault("clone.json", "split or image format differ from the recipe's")
    if plan.num_shards != len(manifest.shards):
        yield Fault("clone.json", f"it lists {len(manifest.shards)} shards, its recipe gives {plan.num_shards}")
    for shard, entry in enumerate(manifest.shards[: plan.num_shards]):
        if entry.num_samples != plan.shard_length(shard):
            yield Fault(
                "clone.json", f"it says {entry.num_samples} samples, the recipe {plan.shard_length(shard)}", entry.name
            )


def _verify_card(manifest: Manifest, storage: Storage) -> Iterator[Fault]:
    if not storage.exists(CARD):
        yield Fault(CARD, "missing")
        return
    try:
        stale = card_faults(storage, manifest)
    except (IndexError, KeyError):
        # The manifest does not fit its recipe; `_verify_manifest` reports that.
        return
    if stale:
        yield Fault(CARD, f"stale: {', '.join(stale)} disagree with clone.json; run 'fakeit-build card'")
