"""Loads batches from clones: a stateless map-style dataset, a sampler that follows the training order, and the loader.

A resumed run needs only its step number; the loader keeps no other state.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import cast

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from builders.errors import ReadableError
from builders.images.crop_batches import as_it_is, check_shared_memory
from fakeit_train.config import TrainConfig
from fakeit_train.crops.mixing import mix_batch, sample_mixes
from fakeit_train.crops.pipeline import make_crops, make_pipelines
from fakeit_train.data.decode import decode
from fakeit_train.data.mixture import Mixture
from fakeit_train.data.order import BatchOrder, EpochSample, rank_slice
from fakeit_train.data.prefetch import Prefetcher
from fakeit_train.signals import ignore_signals


@dataclass
class Batch:
    labels: Tensor
    """int64 (batch,), or float32 (batch, num_classes) if images are mixed."""
    keys: list[str]
    prompt_ids: Tensor
    """int64 (batch,); images of one prompt have the same, -1 stands for a clone without prompt ids."""
    crops: list[Tensor]
    """uint8 (batch, num_crops, size, size, 3) per kind."""

    def pin_memory(self) -> "Batch":
        """Returns the batch in pinned memory; DataLoader calls this if there is a GPU."""
        crops = [crops_of_kind.pin_memory() for crops_of_kind in self.crops]
        return replace(self, labels=self.labels.pin_memory(), prompt_ids=self.prompt_ids.pin_memory(), crops=crops)


class CropDataset(Dataset[Batch | ReadableError]):
    """A dataset that returns whole batches; the crops of a sample depend only on (seed, epoch, key)."""

    def __init__(self, data: Mixture, config: TrainConfig) -> None:
        self.data = data
        self.seed, self.mixing = config.data.seed, config.mixing
        self.pipelines = make_pipelines(config.crops_of_image)

    def __getitems__(self, wanted: list[EpochSample]) -> Batch | ReadableError:
        """Returns a batch, or the error as a value, because an exception would leave a worker as a traceback."""
        try:
            return self._batch(wanted)
        except ReadableError as error:
            return error

    def _batch(self, wanted: list[EpochSample]) -> Batch:
        samples = self.data.views([number for number, _ in wanted])
        prompt_ids = [self.data.prompt_id(number, sample) for (number, _), sample in zip(wanted, samples, strict=True)]
        keys, epochs = [sample.key for sample in samples], [epoch for _, epoch in wanted]
        images = (decode(sample.key, sample.image) for sample in samples)
        arrays = make_crops(zip(images, keys, epochs, strict=True), self.pipelines, self.seed, len(samples))
        crops, labels = (
            [torch.from_numpy(array) for array in arrays],
            torch.tensor([sample.label for sample in samples]),
        )
        if self.mixing.is_on:
            mixes = sample_mixes(self.mixing, crops[0].shape[2], self.seed, list(zip(keys, epochs, strict=True)))
            crops[0], labels = mix_batch(crops[0], labels, mixes, len(self.data.label_names))
        return Batch(labels, keys, torch.tensor(prompt_ids), crops)


class OrderSampler(Sampler[list[EpochSample]]):
    """Yields this rank's slice of every global batch, from step `start` up to but not including `stop`."""

    def __init__(
        self, order: BatchOrder, start: int, stop: int, rank: int, world_size: int, prefetcher: Prefetcher | None = None
    ) -> None:
        self.order, self.start, self.stop = order, start, stop
        self.rank, self.world_size = rank, world_size
        self.prefetcher = prefetcher

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[EpochSample]]:
        for step in range(self.start, self.stop):
            if self.prefetcher:
                self.prefetcher.advance(step)
            yield rank_slice(self.order.global_batch(step), self.rank, self.world_size)


def make_loader(data: Mixture, config: TrainConfig, sampler: OrderSampler) -> Generator[Batch]:
    """Yields the batches of a sampler, which `num_workers` processes prepare in advance.

    Closing the generator ends these processes.

    Raises:
        UserError: a shard or an image is broken, or there is too little shared memory.
    """
    kinds = config.crops_of_image.kinds
    num_bytes = 3 * sum(kind.num_crops * kind.size**2 for kind in kinds) * config.data.batch_size // sampler.world_size
    check_shared_memory(num_bytes, config.data.num_workers, "give fewer or no processes (data.num_workers)")
    loader: DataLoader[Batch | ReadableError] = DataLoader(
        CropDataset(data, config),
        batch_sampler=sampler,
        num_workers=config.data.num_workers,
        collate_fn=as_it_is,
        worker_init_fn=_start_worker,
        pin_memory=torch.cuda.is_available(),
    )
    # This forks the workers, so the threads of the prefetcher start only afterwards.
    batches = iter(loader)
    prefetcher = sampler.prefetcher
    if prefetcher:
        prefetcher.start()
    try:
        for batch in batches:
            if isinstance(batch, ReadableError):
                raise batch
            if prefetcher:
                prefetcher.begin()
            yield batch
    finally:
        # Dropping the iterator ends the workers, which ignore stop signals. A traceback may keep this frame alive.
        del batches
        if prefetcher:
            prefetcher.stop()


def _start_worker(worker: int) -> None:
    # The workers already run in parallel.
    cv2.setNumThreads(0)
    ignore_signals()
    info = get_worker_info()
    assert info is not None
    dataset = cast(CropDataset, info.dataset)
    # A forked worker must not share open files and connections with its parent.
    dataset.data = dataset.data.reopened()
