"""How well the network does on a clone of other images while it trains: top-1, top-5 and loss, over all processes."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from builders.format.backbone import Backbone
from builders.format.errors import UserError
from builders.format.open_clone import Clone, open_clone
from builders.format.squares import SquareBatches, start_worker
from fakeit_train.config import TrainConfig
from fakeit_train.distributed import World
from fakeit_train.model import normalise


class Validation:
    """Of one clone; each process takes every world-size-th image."""

    def __init__(self, clone: Clone, config: TrainConfig, world: World) -> None:
        self.clone, self.world, self.backbone = clone, world, config.backbone
        self.batch_size, self.num_workers = config.validation.batch_size, config.data.num_workers
        self.labels = torch.tensor(_labels(clone, config.backbone))

    @torch.inference_mode()
    def scores(self, network: nn.Module) -> dict[str, float]:
        """`val_top1` and `val_top5` in %, `val_loss`; the network is put in the mode that it had."""
        was_training = network.training
        network.eval()
        sums = torch.zeros(4, dtype=torch.float64)
        for pictures, labels in self._batches():
            pixels = normalise(torch.from_numpy(pictures).to(self.world.device), self.backbone)
            sums += _sums(network(pixels).float().cpu(), self.labels[labels])
        network.train(was_training)
        top1, top5, loss, count = self.world.sum(sums).tolist()
        return {"val_top1": 100 * top1 / count, "val_top5": 100 * top5 / count, "val_loss": loss / count}

    def _batches(self) -> Any:
        numbers = range(self.world.rank, len(self.clone), self.world.size)
        batches = [list(numbers[start : start + self.batch_size]) for start in range(0, len(numbers), self.batch_size)]
        loader: DataLoader[Any] = DataLoader(
            SquareBatches(self.clone, self.backbone.input_size),  # type: ignore[arg-type]
            batch_sampler=batches,
            num_workers=self.num_workers,
            collate_fn=lambda batch: batch,
            worker_init_fn=start_worker,
        )
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            yield batch


def open_validation(config: TrainConfig, world: World) -> Validation | None:
    """None where the config asks for no validation.

    Raises:
        UserError: the clone cannot be opened, or has classes that are not trained.
    """
    data = config.validation.data
    return Validation(open_clone(data, config.data.cache), config, world) if data else None


def _labels(clone: Clone, backbone: Backbone) -> list[int]:
    """For each label of the clone the network's output."""
    known = {name: label for label, name in enumerate(backbone.classes)}
    unknown = [name for name in clone.manifest.label_names if name not in known]
    if unknown:
        raise UserError(
            f"class '{unknown[0]}' of the validation clone '{clone.root}' is none of the {len(known)} that are trained; "
            "give one with the same classes"
        )
    return [known[name] for name in clone.manifest.label_names]


def _sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Right first guesses, right among five, loss and images."""
    ranked = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
    loss = F.cross_entropy(logits, labels, reduction="sum")
    return torch.stack([ranked[:, 0].sum(), ranked.sum(), loss, torch.tensor(len(labels))]).double()
