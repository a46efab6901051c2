"""Crops of one decoded picture on the CPU, in uint8 with OpenCV and torch, as `parameters` drew them."""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from fakeit_train.crops.parameters import BRIGHTNESS, CONTRAST, SATURATION, CropKind, CropParameters

Pixels = NDArray[np.uint8]
"""(height, width, 3), RGB."""


def make_batch(
    parameters: Iterable[tuple[Pixels, list[list[CropParameters]]]], kinds: Sequence[CropKind], count: int
) -> list[Pixels]:
    """The crops of `count` pictures, each with its draws by group: per group uint8 (count, num_crops, size, size, 3).

    Pictures are taken one by one, so that each may be decoded just before, and still lies in the processor's cache.
    """
    made = [np.empty((count, g.num_crops, g.size, g.size, 3), dtype=np.uint8) for g in kinds]
    for number, (image, by_kind) in enumerate(parameters):
        for position, kind, crops in zip(made, kinds, by_kind, strict=True):
            for which, crop in enumerate(crops):
                position[number, which] = make_crop(image, crop, kind.size)
    return made


def make_crop(image: Pixels, parameters: CropParameters, size: int) -> Pixels:
    """One augmented crop (size, size, 3)."""
    crop = resize(image, parameters.left, parameters.top, parameters.wide, parameters.high, size)
    if parameters.flip:
        crop = cv2.flip(crop, 1)
    for which, amount in parameters.jitter:
        crop = jitter(crop, which, amount)
    if parameters.grayscale:
        crop = cv2.cvtColor(luma(crop), cv2.COLOR_GRAY2RGB)
    if parameters.sigma:
        crop = cv2.GaussianBlur(crop, (0, 0), parameters.sigma)
    if parameters.solarize:
        crop = cv2.LUT(crop, SOLARIZED)
    return np.asarray(crop)


LUMA = (0.299, 0.587, 0.114)
"""Of red, green and blue, ITU-R 601."""
SOLARIZED = np.minimum(np.arange(256), 255 - np.arange(256)).astype(np.uint8)
"""Values from 128 on are inverted."""


def resize(image: Pixels, left: int, top: int, wide: int, high: int, size: int) -> Pixels:
    """Bicubic with a filter that widens as it shrinks, as Pillow's does (to one level); OpenCV has none such.

    The window is a view whose strides, that of the single image among them, are those of channels last: the result's are too.
    """
    height, width, _ = image.shape
    strides, start = (3 * height * width, 1, 3 * width, 3), 3 * (top * width + left)
    window = torch.from_numpy(np.ascontiguousarray(image)).as_strided((1, 3, high, wide), strides, start)
    resized = F.interpolate(window, (size, size), mode="bicubic", antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def luma(image: Pixels) -> Pixels:
    """Grey values (height, width), ITU-R 601."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def jitter(image: Pixels, which: int, amount: float) -> Pixels:
    """Brightness, contrast or saturation times `amount`, or the hue turned by it."""
    if which == BRIGHTNESS:
        return np.asarray(cv2.convertScaleAbs(image, alpha=amount))
    if which == CONTRAST:
        return np.asarray(cv2.addWeighted(image, amount, image, 0, (1 - amount) * mean_luma(image)))
    if which == SATURATION:
        return np.asarray(cv2.addWeighted(image, amount, cv2.cvtColor(luma(image), cv2.COLOR_GRAY2RGB), 1 - amount, 0))
    return shift_hue(image, amount)


def mean_luma(image: Pixels) -> float:
    red, green, blue, _ = cv2.mean(image)
    return float(LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)


def shift_hue(image: Pixels, turn: float) -> Pixels:
    """Hue turned by a share of the circle."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(turn * 256) % 256)  # wraps, as hue does
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL))
