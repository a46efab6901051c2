"""Validation by the network's own classifier: top-1, top-5 and loss on other images, computed by all ranks together."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from builders.image_sets.base import ImageSet
from fakeit_train.config import TrainConfig
from fakeit_train.distributed import World
from fakeit_train.validation.base import RankImages, evaluation_mode, labels_in_training


class ClassifierValidation:
    """Validates networks on one image set."""

    def __init__(self, images: ImageSet, config: TrainConfig, world: World, every: int = 1) -> None:
        self.world, self.every = world, every
        self.labels = torch.tensor(labels_in_training(images, config.backbone.classes, config.backbone.class_names))
        self.images = RankImages(images.readable(), range(len(images)), config, world)

    def is_due(self, step: int, num_steps: int) -> bool:
        return step % self.every == 0 or step == num_steps

    def close(self) -> None:
        self.images.close()

    def scores(self, network: nn.Module, signals: Sequence[int] = ()) -> dict[str, float]:
        """Returns `val_top1` and `val_top5` in percent, and `val_loss`; {} if a rank receives a stop signal meanwhile."""
        sums = torch.zeros(5, dtype=torch.float64)
        with evaluation_mode(network, self.world):
            for pixels, labels in self.images.batches():
                if signals:
                    sums[4] = 1
                    break
                sums[:4] += _sums(network(pixels).float().cpu(), self.labels[labels])
        top1, top5, loss, count, is_cut = self.world.sum(sums).tolist()
        if is_cut:
            return {}
        return {"val_top1": 100 * top1 / count, "val_top5": 100 * top5 / count, "val_loss": loss / count}


def _sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns float64 (4,): correct top-1 and top-5 predictions, summed loss, and number of images."""
    ranked = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
    loss = F.cross_entropy(logits, labels, reduction="sum")
    return torch.stack([ranked[:, 0].sum(), ranked.sum(), loss, torch.tensor(len(labels))]).double()
