"""Mixup (Zhang et al., 2018) and cutmix (Yun et al., 2019): mixes the crops and labels of two images of a batch.

The images of a global batch are partners two by two: 0 and 1, 2 and 3, and so on; the training order shuffles them. Each
image has its own share and box, which depend only on (seed, epoch, key). So a mixed batch does not depend on the number
of processes. timm's Mixup draws from global state, and mixes within the batch of a process.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.special import betaincinv
from torch import Tensor

from fakeit_train.crops.config import MixConfig
from fakeit_train.crops.random_values import RandomValues, random_values


@dataclass(frozen=True)
class Mix:
    """How one image is mixed with its partner."""

    share: float
    """The image's own share, from 0 to 1."""
    box: tuple[int, int, int, int] | None = None
    """left, top, right, bottom of the rectangle that comes from the partner, in pixels; None for mixup."""


ALONE = Mix(1.0)


def sample_mix(config: MixConfig, size: int, values: RandomValues) -> Mix:
    """Samples how an image with crops of `size` pixels is mixed."""
    if not values.chance(config.probability):
        return ALONE
    is_cut = values.chance(config.cutmix_probability if config.mixup else 1.0) and config.cutmix > 0
    alpha = config.cutmix if is_cut else config.mixup
    share = float(betaincinv(alpha, alpha, values.uniform()))
    return cut(share, size, values.integer(size), values.integer(size)) if is_cut else Mix(share)


def cut(share: float, size: int, x: int, y: int) -> Mix:
    """Returns cutmix with a box around (x, y); what lies outside the crop is cut off, and adds to the share."""
    side = int(size * (1 - share) ** 0.5)
    left, right = max(x - side // 2, 0), min(x + (side + 1) // 2, size)
    top, bottom = max(y - side // 2, 0), min(y + (side + 1) // 2, size)
    return Mix(1 - (right - left) * (bottom - top) / size**2, (left, top, right, bottom))


def mix_batch(crops: Tensor, labels: Tensor, mixes: Sequence[Mix], num_classes: int) -> tuple[Tensor, Tensor]:
    """Mixes each image with its partner, all crops of an image in the same way.

    Args:
        crops: uint8 (batch, num_crops, size, size, 3), for an even number of images.
        labels: int64 (batch,).
        mixes: how each image is mixed.
        num_classes: Number of classes.

    Returns:
        crops as before, rounded to whole levels, and float32 labels (batch, num_classes), whose rows sum to 1.
    """
    partners = torch.arange(len(labels)) ^ 1
    shares = torch.tensor([mix.share for mix in mixes], dtype=torch.float32)
    targets = torch.zeros(len(labels), num_classes)
    targets.scatter_add_(1, labels[:, None], shares[:, None])
    targets.scatter_add_(1, labels[partners, None], 1 - shares[:, None])
    mixed = crops.clone()
    for number, mix in enumerate(mixes):
        own, other = crops[number], crops[number ^ 1]
        if mix.box:
            left, top, right, bottom = mix.box
            mixed[number, :, top:bottom, left:right] = other[:, top:bottom, left:right]
        elif mix.share < 1:
            mixed[number] = torch.lerp(other.float(), own.float(), mix.share).round_().to(torch.uint8)
    return mixed, targets


def sample_mixes(config: MixConfig, size: int, seed: int, samples: Sequence[tuple[str, int]]) -> list[Mix]:
    """Returns how each sample (key, epoch) is mixed."""
    return [sample_mix(config, size, random_values(seed, epoch, key, "mix")) for key, epoch in samples]
