"""Generates the crops of one decoded image on the CPU, in uint8 with OpenCV and torch.

The module `parameters` samples the parameters of the crops.
"""

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
    """Generates the crops of `count` images: one uint8 array (count, num_crops, size, size, 3) per kind.

    `parameters` yields each image with the parameters of its crops by kind. An iterator can decode each image just
    before its crops are generated, while the pixels are still in the processor's cache.
    """
    made = [np.empty((count, kind.num_crops, kind.size, kind.size, 3), dtype=np.uint8) for kind in kinds]
    for number, (image, by_kind) in enumerate(parameters):
        for array, kind, crops in zip(made, kinds, by_kind, strict=True):
            for which, crop in enumerate(crops):
                array[number, which] = make_crop(image, crop, kind.size)
    return made


def make_crop(image: Pixels, parameters: CropParameters, size: int) -> Pixels:
    """Generates one augmented crop (size, size, 3) of an image."""
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
"""Weights of red, green and blue in the gray value (ITU-R 601)."""
SOLARIZED = np.minimum(np.arange(256), 255 - np.arange(256)).astype(np.uint8)
"""Lookup table of uint8 values; inverts values from 128 on."""


def resize(image: Pixels, left: int, top: int, wide: int, high: int, size: int) -> Pixels:
    """Resizes a window of an image to (size, size, 3): bicubic with antialiasing, within one level of Pillow's result.

    OpenCV has no such filter. All strides of the window's view are channels-last, also that of the batch dimension of
    length 1, so torch returns a channels-last result.
    """
    height, width, _ = image.shape
    strides, start = (3 * height * width, 1, 3 * width, 3), 3 * (top * width + left)
    window = torch.from_numpy(np.ascontiguousarray(image)).as_strided((1, 3, high, wide), strides, start)
    resized = F.interpolate(window, (size, size), mode="bicubic", antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def luma(image: Pixels) -> Pixels:
    """Returns the gray values (height, width) of an image (ITU-R 601)."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def jitter(image: Pixels, which: int, amount: float) -> Pixels:
    """Multiplies brightness, contrast or saturation by `amount`, or shifts the hue by `amount` turns."""
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
    """Shifts the hue by `turn`, a fraction of the color circle."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    # uint8 overflow wraps around, as hue does.
    hsv[..., 0] += np.uint8(round(turn * 256) % 256)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL))
