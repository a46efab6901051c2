"""The operations on a crop, in uint8 with OpenCV. Each samples its own random numbers and applies them.

`pipeline` has the operations in their order. `sample` returns the amount of a change; a false value stands for no change
of this crop.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np

from fakeit_train.crops.random_values import RandomValues
from fakeit_train.crops.window import Pixels

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the gray value (ITU-R 601)."""
SOLARIZED = np.minimum(np.arange(256), 255 - np.arange(256)).astype(np.uint8)
"""Lookup table of uint8 values; inverts values from 128 on."""
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


class Operation(Protocol):
    def sample(self, values: RandomValues, size: int) -> Any:
        """Samples what is done to a crop of `size` pixels; a false value stands for nothing."""

    def apply(self, crop: Pixels, amount: Any) -> Pixels:
        """Returns the changed crop (size, size, 3); `amount` is what `sample` returned."""


@dataclass(frozen=True)
class Flip:
    probability: float

    def sample(self, values: RandomValues, size: int) -> bool:
        return values.chance(self.probability)

    def apply(self, crop: Pixels, amount: bool) -> Pixels:
        return np.asarray(cv2.flip(crop, 1))


@dataclass(frozen=True)
class ColorJitter:
    """Changes brightness, contrast, saturation and hue, in random order."""

    probability: float
    strength: tuple[float, float, float, float]

    def sample(self, values: RandomValues, size: int) -> tuple[tuple[int, float], ...]:
        """Samples (which, amount) of each change, in order of application.

        Amounts of brightness, contrast and saturation are factors, those of hue are turns.
        """
        if not values.chance(self.probability):
            return ()
        amounts = [values.uniform(max(0.0, 1 - s), 1 + s) for s in self.strength[:3]]
        amounts.append(values.uniform(-self.strength[HUE], self.strength[HUE]))
        sort_keys = [values.uniform() for _ in amounts]
        return tuple((which, amounts[which]) for which in sorted(range(4), key=sort_keys.__getitem__))

    def apply(self, crop: Pixels, amount: tuple[tuple[int, float], ...]) -> Pixels:
        for which, factor in amount:
            crop = jitter(crop, which, factor)
        return crop


@dataclass(frozen=True)
class Grayscale:
    probability: float

    def sample(self, values: RandomValues, size: int) -> bool:
        return values.chance(self.probability)

    def apply(self, crop: Pixels, amount: bool) -> Pixels:
        return np.asarray(cv2.cvtColor(luma(crop), cv2.COLOR_GRAY2RGB))


@dataclass(frozen=True)
class Blur:
    """A Gaussian blur; its amount is the standard deviation in pixels of the crop."""

    probability: float
    sigma: tuple[float, float]

    def sample(self, values: RandomValues, size: int) -> float:
        return values.uniform(*self.sigma) if values.chance(self.probability) else 0.0

    def apply(self, crop: Pixels, amount: float) -> Pixels:
        return np.asarray(cv2.GaussianBlur(crop, (0, 0), amount))


@dataclass(frozen=True)
class Solarize:
    probability: float

    def sample(self, values: RandomValues, size: int) -> bool:
        return values.chance(self.probability)

    def apply(self, crop: Pixels, amount: bool) -> Pixels:
        return np.asarray(cv2.LUT(crop, SOLARIZED))


@dataclass(frozen=True)
class Erase:
    """Random erasing (Zhong et al., 2020): fills a rectangle with one color; its amount is left, top, width, height."""

    probability: float
    scale: tuple[float, float]
    ratio: tuple[float, float]
    color: tuple[int, int, int]

    def sample(self, values: RandomValues, size: int) -> tuple[int, int, int, int] | tuple[()]:
        """Returns () also if none of ten attempts fits into the crop, as torchvision's RandomErasing."""
        if not values.chance(self.probability):
            return ()
        for _ in range(10):
            area = size * size * values.uniform(*self.scale)
            aspect = math.exp(values.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            high, wide = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if high < size and wide < size:
                return values.integer(size - wide + 1), values.integer(size - high + 1), wide, high
        return ()

    def apply(self, crop: Pixels, amount: tuple[int, int, int, int]) -> Pixels:
        left, top, wide, high = amount
        crop[top : top + high, left : left + wide] = self.color
        return crop


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
