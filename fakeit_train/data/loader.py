"""Loads batches from clones: a stateless map-style dataset, a sampler that follows the training order, and the loader.

A resumed run needs only its step number; the loader keeps no other state.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, cast

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from builders.errors import ReadableError
from builders.format.samples import SampleView
from fakeit_train.config import TrainConfig
from fakeit_train.crops.on_cpu import Pixels, make_batch
from fakeit_train.crops.on_device import BatchParameters, PackedImages, collect, pack
from fakeit_train.crops.parameters import CropParameters, augmentation_crops, sample_crops
from fakeit_train.data.decode import decode
from fakeit_train.data.mixture import Mixture
from fakeit_train.data.order import BatchOrder, EpochSample, rank_slice
from fakeit_train.data.prefetch import Prefetcher
from fakeit_train.signals import ignore_signals


@dataclass
class Batch:
    labels: Tensor
    """int64 (batch,)."""
    keys: list[str]
    prompt_ids: Tensor
    """int64 (batch,); images of one prompt have the same, -1 stands for a clone without prompt ids."""
    crops: list[Tensor] = field(default_factory=list)
    """uint8 (batch, num_crops, size, size, 3) per kind; empty if the device generates the crops."""
    images: PackedImages | None = None
    """Decoded images, if the device generates the crops."""
    parameters: list[BatchParameters] = field(default_factory=list)
    """Parameters of the crops of each kind, if the device generates the crops."""

    def pin_memory(self) -> "Batch":
        """Returns the batch in pinned memory; DataLoader calls this if there is a GPU."""
        images = self.images.pin_memory() if self.images else None
        crops = [crops_of_kind.pin_memory() for crops_of_kind in self.crops]
        return replace(
            self, labels=self.labels.pin_memory(), prompt_ids=self.prompt_ids.pin_memory(), crops=crops, images=images
        )


class CropDataset(Dataset[Batch | ReadableError]):
    """A dataset that returns whole batches; the crops of a sample depend only on (seed, epoch, key)."""

    def __init__(self, data: Mixture, config: TrainConfig) -> None:
        self.data = data
        self.seed = config.data.seed
        self.crops = augmentation_crops(config.augmentation, config.crops)
        self.is_for_device = config.data.crops_on_device

    def __getitems__(self, wanted: list[EpochSample]) -> Batch | ReadableError:
        """Returns a batch, or the error as a value, because an exception would leave a worker as a traceback."""
        try:
            return self._batch(wanted)
        except ReadableError as error:
            return error

    def _batch(self, wanted: list[EpochSample]) -> Batch:
        samples = self.data.views([number for number, _ in wanted])
        prompt_ids = [self.data.prompt_id(number, sample) for (number, _), sample in zip(wanted, samples, strict=True)]
        batch = Batch(
            torch.tensor([sample.label for sample in samples]),
            [sample.key for sample in samples],
            torch.tensor(prompt_ids),
        )
        parameters = (self._sample_crops(sample, epoch) for sample, (_, epoch) in zip(samples, wanted, strict=True))
        if not self.is_for_device:
            made = make_batch(parameters, self.crops.kinds, len(samples))
            return replace(batch, crops=[torch.from_numpy(crops_of_kind) for crops_of_kind in made])
        images, by_sample = zip(*parameters, strict=True)
        return replace(
            batch,
            images=pack(images),
            parameters=[collect(crops_of_kind) for crops_of_kind in zip(*by_sample, strict=True)],
        )

    def _sample_crops(self, sample: SampleView, epoch: int) -> tuple[Pixels, list[list[CropParameters]]]:
        """Decodes a sample's image and samples the parameters of its crops."""
        image = decode(sample.key, sample.image)
        return image, sample_crops(image.shape[0], image.shape[1], self.crops, self.seed, epoch, sample.key)


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
        UserError: a shard or an image is broken.
    """
    loader: DataLoader[Batch | ReadableError] = DataLoader(
        CropDataset(data, config),
        batch_sampler=sampler,
        num_workers=config.data.num_workers,
        collate_fn=_as_it_is,
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


def _as_it_is(batch: Any) -> Batch | ReadableError:
    return cast(Batch | ReadableError, batch)


def _start_worker(worker: int) -> None:
    # The workers already run in parallel.
    cv2.setNumThreads(0)
    ignore_signals()
    info = get_worker_info()
    assert info is not None
    dataset = cast(CropDataset, info.dataset)
    # A forked worker must not share open files and connections with its parent.
    dataset.data = dataset.data.reopened()
