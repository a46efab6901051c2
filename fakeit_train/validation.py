"""Validation during training: top-1, top-5 and loss on other images, computed by all ranks together."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from builders.classes.matching import match_classes
from builders.errors import UserError
from builders.image_sets.base import ImageSet
from builders.image_sets.open_image_set import open_image_set
from builders.images.crop_batches import checked_batches, crop_loader, start_worker
from builders.networks.backbone import Backbone
from fakeit_train.config import TrainConfig
from fakeit_train.distributed import World
from fakeit_train.objectives.base import normalize
from fakeit_train.signals import ignore_signals

MAX_WORKERS = 4


class Validation:
    """Validates networks on one image set; each rank reads every world-size-th image.

    The loader's processes start at the first validation. As a context manager, it ends them.
    """

    def __init__(self, images: ImageSet, config: TrainConfig, world: World) -> None:
        self.world, self.backbone = world, config.backbone
        self.labels = torch.tensor(_labels(images, config.backbone))
        workers = min(MAX_WORKERS, config.data.num_workers)
        # A forked process could inherit a lock that another thread of training holds.
        options = {"persistent_workers": True, "multiprocessing_context": "forkserver"} if workers else {}
        self.loader: DataLoader[Any] | None = crop_loader(
            images.readable(),
            config.backbone.input_size,
            range(world.rank, len(images), world.size),
            batch_size=config.validation.batch_size,
            workers=workers,
            advice="give fewer or no processes (data.num_workers)",
            start=_start_worker,
            **options,
        )

    def __enter__(self) -> "Validation":
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
        for crops, labels, _ in checked_batches(self.loader):
            if signals:
                sums[4] = 1
                break
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
    """Opens the validation images: a clone, class folders, an archive or a dataset of the Hub; None without validation.

    Raises:
        UserError: they cannot be opened, or have classes that are not in the training data.
    """
    data = config.validation.data
    return Validation(open_image_set(data, cache=config.data.cache), config, world) if data else None


def _labels(images: ImageSet, backbone: Backbone) -> list[int]:
    """Returns the index of the network's output for each label of the images."""
    ids, names = images.class_names, images.display_names
    found = match_classes(ids, names, backbone.classes, backbone.class_names, where=images.location)
    if None in found:
        raise UserError(
            f"class '{ids[found.index(None)]}' of the validation images '{images.location}' is not among the "
            f"{len(backbone.classes)} classes in training; give images of the same classes"
        )
    return [label for label in found if label is not None]


def _sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns float64 (4,): correct top-1 and top-5 predictions, summed loss, and number of images."""
    ranked = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
    loss = F.cross_entropy(logits, labels, reduction="sum")
    return torch.stack([ranked[:, 0].sum(), ranked.sum(), loss, torch.tensor(len(labels))]).double()
