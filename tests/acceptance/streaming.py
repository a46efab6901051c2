"""Streams a clone on one rank with the order, the prefetcher and the loader's processes of training, but without crops.

Prints a line per sample: key and sha256.

python -m tests.acceptance.streaming URL CACHE MAX_BYTES RANK WORLD_SIZE NUM_WORKERS BATCH_SIZE

MAX_BYTES 0 streams without a cache.
"""

import copy
import hashlib
import sys
from pathlib import Path
from typing import cast

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from builders.format.open_clone import Clone, open_clone
from builders.format.shard_cache import ShardCache
from fakeit_train.data.loader import OrderSampler
from fakeit_train.data.mixture import whole
from fakeit_train.data.order import EpochSample, Order
from fakeit_train.data.prefetch import Prefetcher, check_cache
from fakeit_train.distributed import World

BLOCK_SIZE = 4


class _Hashes(Dataset[list[tuple[str, str]]]):
    def __init__(self, clone: Clone) -> None:
        self.clone = clone

    def __getitems__(self, requested: list[EpochSample]) -> list[tuple[str, str]]:
        samples = [self.clone[number] for number, _ in requested]
        return [(sample.key, hashlib.sha256(sample.image).hexdigest()) for sample in samples]


def _own_connections(worker: int) -> None:
    info = get_worker_info()
    assert info is not None
    dataset = cast(_Hashes, info.dataset)
    dataset.clone = copy.copy(dataset.clone)


def main() -> None:
    url, folder = sys.argv[1:3]
    max_bytes, rank, world_size, num_workers, batch_size = map(int, sys.argv[3:])
    clone = open_clone(url, ShardCache(Path(folder), max_bytes) if max_bytes else None)
    order = Order(tuple(s.num_samples for s in clone.manifest.shards), batch_size, block_size=BLOCK_SIZE)
    world = World(rank, world_size, torch.device("cpu"), rank, world_size)
    data = whole(clone)
    check_cache(data, order, world)
    prefetcher = Prefetcher(data, order, world, order.batches_per_epoch)
    sampler = OrderSampler(order, 0, order.batches_per_epoch, rank, world_size, prefetcher)
    loader: DataLoader[list[tuple[str, str]]] = DataLoader(
        _Hashes(clone), batch_sampler=sampler, num_workers=num_workers, collate_fn=list, worker_init_fn=_own_connections
    )
    batches = iter(loader)
    prefetcher.start()
    for batch in batches:
        for key, sha256 in batch:
            print(key, sha256)
    prefetcher.stop()


if __name__ == "__main__":
    main()
