"""Supervised multi-crop: every crop is classified, every crop weighs the same."""

import torch.nn.functional as F
from torch import Tensor


def multi_crop_cross_entropy(logits: list[Tensor], labels: Tensor) -> Tensor:
    """Sum over images of the mean cross-entropy of their crops.

    `logits` has one (batch, num_crops, num_classes) per group, `labels` is (batch,). A sum, so that the weight of an image
    does not depend on the slice of the batch it came in.
    """
    num_crops = sum(group.shape[1] for group in logits)
    total = logits[0].new_zeros(())
    for group in logits:
        targets = labels[:, None].expand(group.shape[:2]).flatten()
        total = total + F.cross_entropy(group.flatten(0, 1).float(), targets, reduction="sum")
    return total / num_crops
