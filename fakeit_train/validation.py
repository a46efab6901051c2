"""Validation during training: top-1, top-5 and loss on another clone, computed by all ranks together."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from builders.classes.matching import match_classes
from builders.errors import UserError
from builders.format.open_clone import Clone, open_clone
from builders.images.center_crop import CroppedBatches, as_it_is, start_worker
from builders.networks.backbone import Backbone
from fakeit_train.config import TrainConfig
from fakeit_train.distributed import World
from fakeit_train.objectives.base import normalize
from fakeit_train.signals import ignore_signals


class Validation:
    """Validates networks on one clone; each rank reads every world-size-th image.

    As a context manager, it starts the loader's workers and ends them.
    """

    def __init__(self, clone: Clone, config: TrainConfig, world: World) -> None:
        self.clone, self.world, self.backbone = clone, world, config.backbone
        self.labels = torch.tensor(_labels(clone, config.backbone))
        numbers, size = range(world.rank, len(clone), world.size), config.validation.batch_size
        num_workers = config.data.num_workers
        self.loader: DataLoader[Any] | None = DataLoader(
            CroppedBatches(clone, config.backbone.input_size),  # type: ignore[arg-type]
            batch_sampler=[list(numbers[start : start + size]) for start in range(0, len(numbers), size)],
            num_workers=num_workers,
            collate_fn=as_it_is,
            worker_init_fn=_start_worker,
            persistent_workers=num_workers > 0,
        )

    def __enter__(self) -> "Validation":
        if self.loader and self.loader.num_workers:
            # This forks the workers now, before other threads may hold locks.
            iter(self.loader)
        return self

    def __exit__(self, *_: object) -> None:
        self.loader = None

    @torch.inference_mode()
    def scores(self, network: nn.Module, signals: Sequence[int] = ()) -> dict[str, float]:
        """Returns `val_top1` and `val_top5` in percent, and `val_loss`; restores the network's mode afterwards.

        Returns {} if any rank receives a stop signal meanwhile.
        """
        was_training = network.training
        network.eval()
        self.world.share_buffers(network)
        sums = torch.zeros(5, dtype=torch.float64)
        mean, std = (
            255 * torch.tensor(values, device=self.world.device)[:, None, None]
            for values in (self.backbone.mean, self.backbone.std)
        )
        assert self.loader is not None
        for batch in self.loader:
            if isinstance(batch, UserError):
                raise batch
            if signals:
                sums[4] = 1
                break
            crops, labels, _ = batch
            pixels = normalize(crops.to(self.world.device), mean, std)
            sums[:4] += _sums(network(pixels).float().cpu(), self.labels[labels])
        network.train(was_training)
        top1, top5, loss, count, is_cut = self.world.sum(sums).tolist()
        if is_cut:
            return {}
        return {"val_top1": 100 * top1 / count, "val_top5": 100 * top5 / count, "val_loss": loss / count}


def _start_worker(worker: int) -> None:
    start_worker(worker)
    ignore_signals()


def open_validation(config: TrainConfig, world: World) -> Validation | None:
    """Opens the validation clone; returns None without validation.

    Raises:
        UserError: the clone cannot be opened, or has classes that are not in the training data.
    """
    data = config.validation.data
    return Validation(open_clone(data, config.data.cache), config, world) if data else None


def _labels(clone: Clone, backbone: Backbone) -> list[int]:
    """Returns the index of the network's output for each label of the clone."""
    ids, names = clone.manifest.label_names, clone.class_names
    found = match_classes(ids, names, backbone.classes, backbone.class_names, where=clone.root)
    if None in found:
        raise UserError(
            f"class '{ids[found.index(None)]}' of the validation clone '{clone.root}' is not among the "
            f"{len(backbone.classes)} classes in training; give a clone with the same classes"
        )
    return [label for label in found if label is not None]


def _sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns float64 (4,): correct top-1 and top-5 predictions, summed loss, and number of images."""
    ranked = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
    loss = F.cross_entropy(logits, labels, reduction="sum")
    return torch.stack([ranked[:, 0].sum(), ranked.sum(), loss, torch.tensor(len(labels))]).double()
