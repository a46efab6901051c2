import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from builders.errors import UserError
from builders.format.manifest import Manifest
from builders.format.open_clone import open_clone
from builders.format.shard_cache import ShardCache
from builders.make_clone import make_clone
from builders.planning.plan import Plan
from builders.publishing.push_to_url import push_to_url
from fakeit_train import cli
from fakeit_train.data.mixture import whole
from fakeit_train.data.order import Order
from fakeit_train.data.prefetch import Prefetcher, check_cache, nodes_of
from fakeit_train.distributed import World
from tests import in_process
from tests.fakeit_train.data.test_order import ORDERS
from tests.fakeit_train.test_trainer import SETTINGS, seen_batches
from tests.loopback.files import FileServer
from tests.loopback.server import failing, running


@pytest.fixture
def server(finished: tuple[Path, Manifest]) -> Iterator[FileServer]:
    with running(FileServer(finished[0])) as found:
        yield found


MANY = [
    Order(shard_lengths=(10,) * 24, global_batch_size=8, block_size=2),
    Order(shard_lengths=(7, 5, 9) * 8, global_batch_size=6, block_size=3, num_canonical_nodes=3, seed=5),
]


def shard_of(order: Order, number: int) -> int:
    starts = list(itertools.accumulate(order.shard_lengths, initial=0))
    return next(shard for shard in range(len(order.shard_lengths)) if starts[shard + 1] > number)


@pytest.mark.parametrize("order", [*MANY, *ORDERS], ids=range(len(MANY) + len(ORDERS)))
def test_prefetch__shards_ahead_are_those_that_batches_need_in_order_of_blocks(order: Order) -> None:
    node_batch_size, steps = order.global_batch_size // order.num_canonical_nodes, order.batches_per_epoch
    for node in range(order.num_canonical_nodes):
        for start in range(0, steps, max(1, steps // 5)):
            needed = [
                shard_of(order, number)
                for step in range(start, steps)
                for number, _ in order.global_batch(step)[node * node_batch_size : (node + 1) * node_batch_size]
            ]
            ahead = list(order.shards_ahead(start, node, steps))
            assert set(needed) <= set(ahead) and len(ahead) - len(set(needed)) <= 2 * order.block_size
            blocks = {shard: number // order.block_size for number, shard in enumerate(ahead)}
            reached = [blocks[shard] for shard in needed]
            assert reached == sorted(reached) and reached[0] == 0


def test_prefetch__shards_ahead_end_with_the_run() -> None:
    order = MANY[0]
    assert len(list(order.shards_ahead(0, 0, 3 * order.batches_per_epoch))) == 3 * 24
    assert len(list(order.shards_ahead(order.batches_per_epoch, 0, 2 * order.batches_per_epoch))) == 24


@pytest.mark.parametrize("order", ORDERS, ids=range(len(ORDERS)))
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_prefetch__a_rank_prefetches_for_the_canonical_nodes_that_it_reads(order: Order, world_size: int) -> None:
    size, node_batch_size = order.global_batch_size, order.global_batch_size // order.num_canonical_nodes
    for rank in range(world_size):
        samples = range(size * rank // world_size, size * (rank + 1) // world_size)
        assert {sample // node_batch_size for sample in samples} <= set(nodes_of(order, rank, world_size))


def wait_for(condition: object) -> None:
    until = time.monotonic() + 20
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until
        time.sleep(0.02)


def test_prefetch__prefetches_as_far_as_the_cache_has_room(server: FileServer, tmp_path: Path) -> None:
    manifest = open_clone(server.url).manifest
    sizes, metadata = [shard.num_bytes for shard in manifest.shards], manifest.metadata[0].num_bytes
    clone = open_clone(server.url, ShardCache(tmp_path / "cache", 2 * max(sizes) + 2 * metadata, seconds_in_use=0))
    assert clone.cache is not None
    order = Order(tuple(s.num_samples for s in clone.manifest.shards), 4, block_size=1)
    prefetcher = Prefetcher(whole(clone), order, World(0, 1, torch.device("cpu")), order.batches_per_epoch)
    prefetcher.advance(0)
    prefetcher.start()
    prefetcher.begin()
    try:
        for step in range(0, order.batches_per_epoch, 3):
            prefetcher.advance(step)
            ahead = [clone.manifest.shards[shard] for shard in itertools.islice(order.shards_ahead(step, 0, 1), 2)]
            wait_for(lambda ahead=ahead: all(clone.cache.has(shard) for shard in ahead))
            assert clone.cache.num_bytes() <= clone.cache.max_bytes
    finally:
        prefetcher.stop()


@pytest.mark.parametrize("ahead", [0, 4])
@pytest.mark.parametrize("seconds_in_use", [0.0, 0.3, 5.0])
def test_prefetch__a_small_cache_does_not_multiply_the_downloads(
    real_plan: Plan, tmp_path: Path, ahead: int, seconds_in_use: float
) -> None:
    """The sampler is some batches ahead of the reader, as it is with loader workers."""
    make_clone(Plan(replace(real_plan.recipe, shard_size=10), 24), str(tmp_path / "clone"))
    with running(FileServer(tmp_path / "clone")) as server:
        manifest = open_clone(server.url).manifest
        size, metadata = max(shard.num_bytes for shard in manifest.shards), manifest.metadata[0].num_bytes
        order = Order(tuple(shard.num_samples for shard in manifest.shards), 4, block_size=2)
        cache = ShardCache(tmp_path / "cache", 5 * size + 2 * metadata, seconds_in_use)
        clone = open_clone(server.url, cache)
        prefetcher = Prefetcher(whole(clone), order, World(0, 1, torch.device("cpu")), order.batches_per_epoch)
        prefetcher.start()
        for step in range(order.batches_per_epoch):
            prefetcher.advance(min(step + ahead, order.batches_per_epoch - 1))
            assert [clone[number].key for number, _ in order.global_batch(step)]
            time.sleep(0.02)
        prefetcher.stop()
        sent = sum(num_bytes for path, num_bytes in server.traffic.sent_by_path.items() if path.endswith("tar"))
        assert cache.num_bytes() <= cache.max_bytes and sent <= 1.3 * manifest.num_bytes


def test_prefetch__downloads_wait_for_the_first_batch(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fakeit_train.data.prefetch.SECONDS_ALONE", 60)
    clone = open_clone(server.url, ShardCache(tmp_path / "cache", 10**9))
    order = Order(tuple(s.num_samples for s in clone.manifest.shards), 4, block_size=2)
    prefetcher = Prefetcher(whole(clone), order, World(0, 1, torch.device("cpu")), order.batches_per_epoch)
    prefetcher.advance(0)
    prefetcher.start()
    cache = clone.cache
    assert cache is not None
    time.sleep(0.3)
    assert not any(path.endswith("tar") for path in server.traffic.sent_by_path)
    prefetcher.begin()
    wait_for(lambda: all(cache.has(shard) for shard in clone.manifest.shards))
    prefetcher.stop()


def test_prefetch__threads_sleep_once_all_shards_are_cached(server: FileServer, tmp_path: Path) -> None:
    clone = open_clone(server.url, ShardCache(tmp_path / "cache", 10**9))
    order = Order(tuple(s.num_samples for s in clone.manifest.shards), 4, block_size=2)
    prefetcher = Prefetcher(whole(clone), order, World(0, 1, torch.device("cpu")), 100 * order.batches_per_epoch)
    prefetcher.advance(0)
    prefetcher.start()
    cache = clone.cache
    assert cache is not None
    wait_for(lambda: all(cache.has(shard) for shard in clone.manifest.shards))
    time.sleep(0.2)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1
    prefetcher.stop()


def test_prefetch__a_cache_smaller_than_a_block_is_reported(server: FileServer, tmp_path: Path) -> None:
    clone = open_clone(server.url, ShardCache(tmp_path / "cache", 100_000))
    order = Order(tuple(s.num_samples for s in clone.manifest.shards), 4, block_size=2)
    with pytest.raises(UserError, match=r"the 2 shards that are shuffled together .* raise data\.cache_gib"):
        check_cache(whole(clone), order, World(0, 1, torch.device("cpu")))
    check_cache(whole(open_clone(server.root)), order, World(0, 1, torch.device("cpu")))


def train(data: str, out: Path, cache: Path, *more: str) -> None:
    ended = in_process.call(
        cli.main,
        "digits",
        "--data",
        data,
        "--out",
        out,
        "--set",
        *SETTINGS,
        "num_epochs=1",
        f"data.cache_dir={cache}",
        *more,
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("num_workers", [0, 2])
def test_prefetch__a_run_over_a_failing_network_equals_a_local_run(
    server: FileServer, tmp_path: Path, num_workers: int
) -> None:
    workers = f"data.num_workers={num_workers}"
    train(str(server.root), tmp_path / "local", tmp_path, workers)
    server.traffic.choose = failing(0.1)
    train(server.url, tmp_path / "remote", tmp_path / "cache", workers, "data.block_size=2", "data.cache_gib=0.001")
    train(str(server.root), tmp_path / "local2", tmp_path, workers, "data.block_size=2")
    assert seen_batches(tmp_path / "remote") == seen_batches(tmp_path / "local2")
    assert seen_batches(tmp_path / "remote") != seen_batches(tmp_path / "local")
    weights = [load_file(tmp_path / name / "backbone.safetensors") for name in ("remote", "local2")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_prefetch__a_run_from_s3_equals_a_local_run(finished: tuple[Path, Manifest], s3: str, tmp_path: Path) -> None:
    push_to_url(str(finished[0]), f"{s3}/train")
    train(f"{s3}/train", tmp_path / "remote", tmp_path / "cache")
    train(str(finished[0]), tmp_path / "local", tmp_path)
    assert seen_batches(tmp_path / "remote") == seen_batches(tmp_path / "local")
