"""What all kinds of validation have in common: images of which each rank reads a slice, and a network in evaluation mode."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from builders.classes.matching import match_classes
from builders.errors import UserError
from builders.image_sets.base import ImageSet
from builders.images.crop_batches import Images, checked_batches, crop_loader, start_worker
from fakeit_train.config import TrainConfig
from fakeit_train.distributed import World
from fakeit_train.objectives.base import normalize
from fakeit_train.signals import ignore_signals

MAX_WORKERS = 4


class Validation(Protocol):
    def is_due(self, step: int, num_steps: int) -> bool:
        """Returns whether it takes place after a number of steps."""

    def scores(self, network: nn.Module, signals: Sequence[int] = ()) -> dict[str, float]:
        """Returns scores by name; restores the network's mode afterwards. Returns {} if a rank receives a stop signal."""

    def close(self) -> None:
        """Ends the processes that load images."""


class Validations:
    """The validations of a run. As a context manager, it ends their processes."""

    def __init__(self, every_one: Sequence[Validation], main: str = "val_top1") -> None:
        self.every_one = every_one
        self.main = main
        """Name of the score that decides which network is the best."""
        self._due: list[Validation] = []

    def __enter__(self) -> "Validations":
        return self

    def __exit__(self, *_: object) -> None:
        for validation in self.every_one:
            validation.close()

    def is_due(self, step: int, num_steps: int) -> bool:
        self._due = [validation for validation in self.every_one if validation.is_due(step, num_steps)]
        return bool(self._due)

    def scores(self, network: nn.Module, signals: Sequence[int]) -> dict[str, float]:
        """Returns the scores of those that are due; {} if a rank receives a stop signal meanwhile."""
        scores: dict[str, float] = {}
        for validation in self._due:
            found = validation.scores(network, signals)
            if not found:
                return {}
            scores |= found
        return scores


class RankImages:
    """Images of which each rank loads every world-size-th, as normalized batches.

    The loader's processes start at the first use.
    """

    def __init__(self, images: Images, numbers: Sequence[int], config: TrainConfig, world: World) -> None:
        self.world, self.backbone, self.count = world, config.backbone, len(numbers)
        workers = min(MAX_WORKERS, config.data.num_workers)
        # A forked process could inherit a lock that another thread of training holds.
        options = {"persistent_workers": True, "multiprocessing_context": "forkserver"}
        self.loader: DataLoader[Any] | None = crop_loader(
            images,
            config.backbone.input_size,
            numbers[world.rank :: world.size],
            batch_size=config.validation.batch_size,
            workers=workers,
            advice="give fewer or no processes (data.num_workers)",
            start=_start_worker,
            **options,
        )

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields pixels (batch, 3, size, size) on the device, and labels (batch,)."""
        mean, std = (
            255 * torch.tensor(values, device=self.world.device)[:, None, None]
            for values in (self.backbone.mean, self.backbone.std)
        )
        assert self.loader is not None
        for crops, labels, _ in checked_batches(self.loader):
            yield normalize(crops.to(self.world.device), mean, std), labels

    def close(self) -> None:
        self.loader = None


def _start_worker(worker: int) -> None:
    start_worker(worker)
    ignore_signals()


@contextmanager
def evaluation_mode(network: nn.Module, world: World) -> Iterator[None]:
    """Puts a network into evaluation mode, with the main rank's running statistics on all ranks."""
    was_training = network.training
    network.eval()
    world.share_buffers(network)
    with torch.inference_mode():
        yield
    network.train(was_training)


def labels_in_training(images: ImageSet, classes: tuple[str, ...], class_names: tuple[str, ...]) -> list[int]:
    """Returns the number of the training class for each label of the images.

    Raises:
        UserError: a class is not among those in training.
    """
    ids, names = images.class_names, images.display_names
    found = match_classes(ids, names, classes, class_names, where=images.location)
    if None in found:
        raise UserError(
            f"class '{ids[found.index(None)]}' of the validation images '{images.location}' is not among the "
            f"{len(classes)} classes in training; give images of the same classes"
        )
    return [label for label in found if label is not None]
