"""Crops of one decoded picture on the CPU, in uint8 with OpenCV and torch, as `crop_draws` drew them."""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from fakeit_train.crop_draws import BRIGHTNESS, CONTRAST, SATURATION, CropGroup, DrawnCrop

Pixels = NDArray[np.uint8]
"""(height, width, 3), RGB."""


def make_batch(
    drawn: Iterable[tuple[Pixels, list[list[DrawnCrop]]]], groups: Sequence[CropGroup], count: int
) -> list[Pixels]:
    """The crops of `count` pictures, each with its draws by group: per group uint8 (count, num_crops, size, size, 3).

    Pictures are taken one by one, so that each may be decoded just before, and still lies in the processor's cache.
    """
    made = [np.empty((count, g.num_crops, g.size, g.size, 3), dtype=np.uint8) for g in groups]
    for number, (picture, by_group) in enumerate(drawn):
        for place, group, crops in zip(made, groups, by_group, strict=True):
            for which, crop in enumerate(crops):
                place[number, which] = make_crop(picture, crop, group.size)
    return made


def make_crop(picture: Pixels, drawn: DrawnCrop, size: int) -> Pixels:
    """One augmented crop (size, size, 3)."""
    crop = resize(picture, drawn.left, drawn.top, drawn.wide, drawn.high, size)
    if drawn.flip:
        crop = cv2.flip(crop, 1)
    for which, amount in drawn.jitter:
        crop = jitter(crop, which, amount)
    if drawn.grey:
        crop = cv2.cvtColor(luma(crop), cv2.COLOR_GRAY2RGB)
    if drawn.sigma:
        crop = cv2.GaussianBlur(crop, (0, 0), drawn.sigma)
    if drawn.solarise:
        crop = cv2.LUT(crop, SOLARISED)
    return np.asarray(crop)


LUMA = (0.299, 0.587, 0.114)
"""Of red, green and blue, ITU-R 601."""
SOLARISED = np.minimum(np.arange(256), 255 - np.arange(256)).astype(np.uint8)
"""Values from 128 on are inverted."""


def resize(picture: Pixels, left: int, top: int, wide: int, high: int, size: int) -> Pixels:
    """Bicubic with a filter that widens as it shrinks, as Pillow's does (to one level); OpenCV has none such.

    The window is a view whose strides, that of the single image among them, are those of channels last: the result's are too.
    """
    height, width, _ = picture.shape
    strides, start = (3 * height * width, 1, 3 * width, 3), 3 * (top * width + left)
    window = torch.from_numpy(np.ascontiguousarray(picture)).as_strided((1, 3, high, wide), strides, start)
    resized = F.interpolate(window, (size, size), mode="bicubic", antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def luma(picture: Pixels) -> Pixels:
    """Grey values (height, width), ITU-R 601."""
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))


def jitter(picture: Pixels, which: int, amount: float) -> Pixels:
    """Brightness, contrast or saturation times `amount`, or the hue turned by it."""
    if which == BRIGHTNESS:
        return np.asarray(cv2.convertScaleAbs(picture, alpha=amount))
    if which == CONTRAST:
        return np.asarray(cv2.addWeighted(picture, amount, picture, 0, (1 - amount) * mean_luma(picture)))
    if which == SATURATION:
        return np.asarray(
            cv2.addWeighted(picture, amount, cv2.cvtColor(luma(picture), cv2.COLOR_GRAY2RGB), 1 - amount, 0)
        )
    return shift_hue(picture, amount)


def mean_luma(picture: Pixels) -> float:
    red, green, blue, _ = cv2.mean(picture)
    return float(LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)


def shift_hue(picture: Pixels, turn: float) -> Pixels:
    """Hue turned by a share of the circle."""
    hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(turn * 256) % 256)  # wraps, as hue does
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL))
