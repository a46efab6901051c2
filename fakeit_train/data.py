"""From a clone to batches: a stateless map-style dataset, a sampler that follows the order, and the loader over both.

Resuming is a step number: nothing else is kept.
"""

import copy
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from builders.format.errors import UserError
from builders.format.images import decode_sample
from builders.format.open_clone import Clone
from fakeit_train.config import TrainConfig
from fakeit_train.crops import augmentation_crops, make_crops
from fakeit_train.order import Order
from fakeit_train.prefetch import Prefetcher

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""What clusters send before they take a machine away, and Ctrl-C."""
Place = tuple[int, int]
"""Sample number and epoch."""


@dataclass
class Batch:
    crops: list[Tensor]
    """Per group uint8 (batch, num_crops, size, size, 3)."""
    labels: Tensor
    """int64 (batch,)."""
    keys: list[str]


class CropDataset(Dataset[Batch | UserError]):
    """Whole batches of crops; a sample's are a function of (seed, epoch, key)."""

    def __init__(self, clone: Clone, config: TrainConfig) -> None:
        self.clone = clone
        self.seed = config.data.seed
        self.crops = augmentation_crops(config.augmentation, config.crops)

    def __getitems__(self, places: list[Place]) -> Batch | UserError:
        """A batch, or what is wrong with it: an exception would come out of a worker as a traceback."""
        try:
            return self._batch(places)
        except UserError as error:
            return error

    def _batch(self, places: list[Place]) -> Batch:
        samples = [self.clone.view(number) for number, _ in places]
        crops = [
            make_crops(decode_sample(sample.key, sample.picture), self.crops, self.seed, epoch, sample.key)
            for sample, (_, epoch) in zip(samples, places, strict=True)
        ]
        return Batch(
            crops=[torch.from_numpy(np.stack(group)) for group in zip(*crops, strict=True)],
            labels=torch.tensor([sample.label for sample in samples]),
            keys=[sample.key for sample in samples],
        )


class OrderSampler(Sampler[list[Place]]):
    """This rank's part of every global batch from `start` to `stop`."""

    def __init__(
        self, order: Order, start: int, stop: int, rank: int, world_size: int, prefetcher: Prefetcher | None = None
    ) -> None:
        self.order, self.start, self.stop = order, start, stop
        self.rank, self.world_size = rank, world_size
        self.prefetcher = prefetcher

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[Place]]:
        for step in range(self.start, self.stop):
            if self.prefetcher:
                self.prefetcher.advance(step)
            yield rank_part(self.order.global_batch(step), self.rank, self.world_size)


def rank_part(batch: list[Place], rank: int, world_size: int) -> list[Place]:
    """The rank's slice of a global batch; slices differ by one sample at most."""
    return batch[len(batch) * rank // world_size : len(batch) * (rank + 1) // world_size]


def make_order(clone: Clone, config: TrainConfig) -> Order:
    """The training order of a clone."""
    return Order(
        shard_lengths=tuple(shard.num_samples for shard in clone.manifest.shards),
        global_batch_size=config.data.batch_size,
        seed=config.data.seed,
        block_size=config.data.block_size,
        num_groups=config.data.num_canonical_nodes,
    )


def make_loader(clone: Clone, config: TrainConfig, sampler: OrderSampler) -> Iterator[Batch]:
    """Batches of a sampler, made by `num_workers` processes ahead of their use.

    Raises:
        UserError: a shard or a picture is broken.
    """
    loader: DataLoader[Batch | UserError] = DataLoader(
        CropDataset(clone, config),
        batch_sampler=sampler,
        num_workers=config.data.num_workers,
        collate_fn=_as_it_is,
        worker_init_fn=_start_worker,
    )
    batches = iter(loader)  # which forks the workers
    prefetcher = sampler.prefetcher
    if prefetcher:
        prefetcher.start()
    try:
        for batch in batches:
            if isinstance(batch, UserError):
                raise batch
            yield batch
    finally:
        if prefetcher:
            prefetcher.stop()


def _as_it_is(batch: Any) -> Batch | UserError:
    return cast(Batch | UserError, batch)


def _start_worker(worker: int) -> None:
    cv2.setNumThreads(0)  # the processes are the parallelism
    for number in STOP_SIGNALS:  # sent to the whole process group; the training process decides
        signal.signal(number, signal.SIG_IGN)
    info = get_worker_info()
    assert info is not None
    dataset = cast(CropDataset, info.dataset)
    dataset.clone = copy.copy(dataset.clone)  # files and connections of the parent are not for a forked child
