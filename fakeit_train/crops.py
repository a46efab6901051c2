"""Crops of one decoded picture, in uint8 with OpenCV and torch: DINO's multi-crop, and the plain ImageNet augmentation.

Invariant: the crops of a sample are a function of (seed, epoch, key) and the picture, whatever worker or rank makes them.
Values follow DINO (Caron et al., 2021): flip 0.5; colour jitter (0.4, 0.4, 0.2, 0.1) with p 0.8; grey 0.2; blur and solarise
by group.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from builders.format.errors import UserError, near

Pixels = NDArray[np.uint8]
"""(height, width, 3), RGB."""


@dataclass(frozen=True, kw_only=True)
class CropGroup:
    num_crops: int
    """Crops of this kind per image."""
    size: int
    """Side in pixels."""
    scale: tuple[float, float]
    """Range of the share of the picture's area."""
    blur: float = 0.0
    """Probability of a Gaussian blur."""
    solarise: float = 0.0
    """Probability of inverting values from 128 on."""


@dataclass(frozen=True, kw_only=True)
class CropConfig:
    groups: tuple[CropGroup, ...] = (
        CropGroup(num_crops=1, size=224, scale=(0.25, 1.0), blur=0.2, solarise=0.2),
        CropGroup(num_crops=8, size=96, scale=(0.05, 0.25), blur=0.5),
    )
    """Kinds of crops, the ones of one size together."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    jitter: float = 0.8
    """Probability of colour jitter."""
    jitter_strength: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    """Brightness, contrast, saturation, hue."""
    grey: float = 0.2
    """Probability of grey."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Range of the blur's standard deviation in pixels of the crop."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of a crop's aspect ratio."""


AUGMENTATIONS = ("dino", "plain")


def augmentation_crops(name: str, crops: CropConfig) -> CropConfig:
    """The crops of an augmentation: `dino` as configured, `plain` one crop of 8 to 100 % of the area, flipped or not.

    `plain` is the "PyTorch" augmentation of the paper (Tab. 2); it keeps the first group's size and the flip.
    """
    if name not in AUGMENTATIONS:
        raise UserError(f"unknown augmentation '{name}'; {near(name, list(AUGMENTATIONS))}")
    if name == "dino":
        return crops
    group = CropGroup(num_crops=1, size=crops.groups[0].size, scale=(0.08, 1.0))
    return replace(crops, groups=(group,), jitter=0.0, grey=0.0)


@dataclass(frozen=True)
class Draws:
    """Uniform numbers in [0, 1) that a name decides, in their order."""

    values: Iterator[float] = field(repr=False)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * next(self.values)

    def chance(self, probability: float) -> bool:
        return next(self.values) < probability


DRAWS_PER_CROP = 48
"""More than any crop takes: 22 for its place, 1 flip, 9 jitter, 1 grey, 2 blur, 1 solarise."""


def draws(seed: int, epoch: int, key: str, crop: int) -> Draws:
    """The random numbers of one crop: 53-bit fractions from SHAKE128 over "<seed>/<epoch>/<key>/<crop>"."""
    stream = hashlib.shake_128(f"{seed}/{epoch}/{key}/{crop}".encode()).digest(8 * DRAWS_PER_CROP)
    return Draws(iter(((np.frombuffer(stream, dtype=">u8") >> 11) * 2.0**-53).tolist()))


def make_crops(picture: Pixels, config: CropConfig, seed: int, epoch: int, key: str) -> list[Pixels]:
    """One array (num_crops, size, size, 3) per group."""
    crops, number = [], 0
    for group in config.groups:
        made = []
        for _ in range(group.num_crops):
            made.append(make_crop(picture, group, config, draws(seed, epoch, key, number)))
            number += 1
        crops.append(np.stack(made))
    return crops


def make_crop(picture: Pixels, group: CropGroup, config: CropConfig, draw: Draws) -> Pixels:
    """One augmented crop (size, size, 3)."""
    crop = resized_crop(picture, group.size, group.scale, config.ratio, draw)
    if draw.chance(config.flip):
        crop = cv2.flip(crop, 1)
    if draw.chance(config.jitter):
        crop = jitter_colour(crop, config.jitter_strength, draw)
    if draw.chance(config.grey):
        crop = np.repeat(luma(crop)[..., None], 3, axis=2)
    if draw.chance(group.blur):
        crop = cv2.GaussianBlur(crop, (0, 0), draw.uniform(*config.blur_sigma))
    if draw.chance(group.solarise):
        crop = np.where(crop >= 128, 255 - crop, crop)
    return np.asarray(crop, dtype=np.uint8)


def resized_crop(
    picture: Pixels, size: int, scale: tuple[float, float], ratio: tuple[float, float], draw: Draws
) -> Pixels:
    """A crop of random area and aspect ratio, resized (Inception crop; ten tries, then the middle of the picture)."""
    height, width = picture.shape[:2]
    for _ in range(10):
        area = height * width * draw.uniform(*scale)
        aspect = math.exp(draw.uniform(math.log(ratio[0]), math.log(ratio[1])))
        wide, high = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < high <= height:
            left, top = int(draw.uniform(0, width - wide + 1)), int(draw.uniform(0, height - high + 1))
            break
    else:
        wide, high = min(width, round(height * ratio[1])), min(height, round(width / ratio[0]))
        left, top = (width - wide) // 2, (height - high) // 2
    return resize(picture[top : top + high, left : left + wide], size)


def resize(window: Pixels, size: int) -> Pixels:
    """Bicubic with a filter that widens as it shrinks, as Pillow's does (to one level); OpenCV has none such."""
    channels_first = torch.from_numpy(np.array(window)).permute(2, 0, 1)[None]  # a view of channels-last bytes
    resized = F.interpolate(channels_first, (size, size), mode="bicubic", antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def luma(picture: Pixels) -> Pixels:
    """Grey values (height, width), ITU-R 601."""
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))


def blend(picture: Pixels, other: Pixels | float, factor: float) -> Pixels:
    """factor x picture + (1 - factor) x other, saturated; `other` is a picture or a grey value."""
    if isinstance(other, float):
        return np.asarray(
            cv2.convertScaleAbs(picture, alpha=factor, beta=0) if other == 0.0 else _lut(picture, factor, other)
        )
    return np.asarray(cv2.addWeighted(picture, factor, other, 1 - factor, 0))


def _lut(picture: Pixels, factor: float, other: float) -> Pixels:
    table = np.clip(np.arange(256) * factor + (1 - factor) * other + 0.5, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(picture, table))


def shift_hue(picture: Pixels, turn: float) -> Pixels:
    """Hue turned by a share of the circle."""
    hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(turn * 256) % 256)  # wraps, as hue does
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL))


def jitter_colour(picture: Pixels, strength: tuple[float, float, float, float], draw: Draws) -> Pixels:
    """Brightness, contrast, saturation and hue changed by random amounts in random order."""
    brightness, contrast, saturation = (draw.uniform(max(0.0, 1 - s), 1 + s) for s in strength[:3])
    turn = draw.uniform(-strength[3], strength[3])
    changes: list[tuple[float, Callable[[Pixels], Pixels]]] = [
        (draw.uniform(), lambda p: blend(p, 0.0, brightness)),
        (draw.uniform(), lambda p: blend(p, float(luma(p).mean()), contrast)),
        (draw.uniform(), lambda p: blend(p, cv2.cvtColor(luma(p), cv2.COLOR_GRAY2RGB), saturation)),
        (draw.uniform(), lambda p: shift_hue(p, turn)),
    ]
    for _, change in sorted(changes, key=lambda pair: pair[0]):
        picture = change(picture)
    return picture
