"""Supervised multi-crop: every crop is classified, and weighs the same unless its group has a weight."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def multi_crop_cross_entropy(
    logits: list[Tensor], labels: Tensor, *, label_smoothing: float = 0.0, crop_weights: Sequence[float] = ()
) -> Tensor:
    """Sum over images of the weighted mean cross-entropy of their crops.

    `logits` has one (batch, num_crops, num_classes) per group, `labels` is (batch,), `crop_weights` one weight of a crop per
    group. A sum, so that the weight of an image does not depend on the slice of the batch it came in.
    """
    weights = crop_weights or [1.0] * len(logits)
    total = logits[0].new_zeros(())
    for crops_of_kind, weight in zip(logits, weights, strict=True):
        targets = labels[:, None].expand(crops_of_kind.shape[:2]).flatten()
        crops = crops_of_kind.flatten(0, 1).float()
        total = total + weight * F.cross_entropy(crops, targets, reduction="sum", label_smoothing=label_smoothing)
    return total / sum(weight * crops_of_kind.shape[1] for crops_of_kind, weight in zip(logits, weights, strict=True))
