"""Crops of one decoded picture on the CPU, in uint8 with OpenCV and torch, as `crop_draws` drew them."""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from fakeit_train.crop_draws import BRIGHTNESS, CONTRAST, SATURATION, CropConfig, DrawnCrop, draw_crops

Pixels = NDArray[np.uint8]
"""(height, width, 3), RGB."""


def make_crops(picture: Pixels, config: CropConfig, seed: int, epoch: int, key: str) -> list[Pixels]:
    """One array (num_crops, size, size, 3) per group."""
    drawn = draw_crops(picture.shape[0], picture.shape[1], config, seed, epoch, key)
    return [
        np.stack([make_crop(picture, crop, group.size) for crop in crops])
        for group, crops in zip(config.groups, drawn, strict=True)
    ]


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
        return np.asarray(cv2.LUT(picture, contrast_table(float(cv2.mean(luma(picture))[0]), amount)))
    if which == SATURATION:
        return np.asarray(
            cv2.addWeighted(picture, amount, cv2.cvtColor(luma(picture), cv2.COLOR_GRAY2RGB), 1 - amount, 0)
        )
    return shift_hue(picture, amount)


def contrast_table(mean: float, factor: float) -> NDArray[np.uint8]:
    """factor x value + (1 - factor) x mean for every value, saturated."""
    return np.clip(np.arange(256) * factor + ((1 - factor) * mean + 0.5), 0, 255).astype(np.uint8)


def shift_hue(picture: Pixels, turn: float) -> Pixels:
    """Hue turned by a share of the circle."""
    hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(turn * 256) % 256)  # wraps, as hue does
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL))
