"""The supervised multi-crop loss: every crop is classified, and all crops weigh the same unless kinds have weights."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from builders.networks.backbone import Backbone
from fakeit_train.config import TrainConfig
from fakeit_train.objectives.base import Objective, Result


def build(network: nn.Module, backbone: Backbone, config: TrainConfig) -> Objective:
    return CrossEntropy(network, backbone, config)


class CrossEntropy(Objective):
    """The network's own classifier, on every crop."""

    def __init__(self, network: nn.Module, backbone: Backbone, config: TrainConfig) -> None:
        super().__init__(network, backbone)
        self.label_smoothing, self.crop_weights = config.label_smoothing, config.crop_weights

    def forward(self, crops: Sequence[Tensor], labels: Tensor, prompt_ids: Tensor) -> Result:
        logits = [self.outputs(crops_of_kind) for crops_of_kind in crops]
        loss = multi_crop_cross_entropy(
            logits, labels, label_smoothing=self.label_smoothing, crop_weights=self.crop_weights
        )
        with torch.no_grad():
            largest = labels.argmax(-1) if labels.is_floating_point() else labels
            is_right = logits[0].argmax(-1) == largest[:, None]
        return loss, {"train_top1": 100 * is_right.float().mean(1).sum()}


def multi_crop_cross_entropy(
    logits: list[Tensor], labels: Tensor, *, label_smoothing: float = 0.0, crop_weights: Sequence[float] = ()
) -> Tensor:
    """Returns the sum over images of the weighted mean cross-entropy of their crops.

    `logits` has one tensor (batch, num_crops, num_classes) per kind of crops. `labels` is int64 (batch,) or float32
    (batch, num_classes). `crop_weights` has the weight of a single crop of each kind. The result is a sum, so that the
    weight of an image does not depend on the size of its micro-batch.
    """
    weights = crop_weights or [1.0] * len(logits)
    total = logits[0].new_zeros(())
    for crops_of_kind, weight in zip(logits, weights, strict=True):
        targets = labels.repeat_interleave(crops_of_kind.shape[1], dim=0)
        crops = crops_of_kind.flatten(0, 1).float()
        total = total + weight * F.cross_entropy(crops, targets, reduction="sum", label_smoothing=label_smoothing)
    return total / sum(weight * crops_of_kind.shape[1] for crops_of_kind, weight in zip(logits, weights, strict=True))
