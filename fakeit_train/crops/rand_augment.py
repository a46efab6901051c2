"""RandAugment (Cubuk et al., 2020), as torchvision has it, with the random numbers of the sample."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torchvision.transforms import functional as F

from fakeit_train.crops.config import MAX_MAGNITUDE
from fakeit_train.crops.random_values import RandomValues
from fakeit_train.crops.window import Pixels

Amount = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Change:
    apply: Callable[[Image.Image, float], Image.Image]
    """Applies the change with an amount between `weakest` and `strongest`."""
    weakest: float = 0.0
    strongest: float = 0.0
    is_signed: bool = False
    """Whether the amount may be negative, with probability 0.5."""


def _affine(image: Image.Image, *, x: float = 0.0, y: float = 0.0, shear: tuple[float, float] = (0, 0)) -> Image.Image:
    degrees = [math.degrees(math.atan(one)) for one in shear]
    center = [0, 0] if any(shear) else None
    moved: Image.Image = F.affine(image, angle=0.0, translate=[int(x), int(y)], scale=1.0, shear=degrees, center=center)
    return moved


MAX_TRANSLATION = 150 / 331
"""Fraction of the crop's side."""
CHANGES: dict[str, Change] = {
    "Identity": Change(lambda image, _: image),
    "ShearX": Change(lambda image, amount: _affine(image, shear=(amount, 0)), 0, 0.3, True),
    "ShearY": Change(lambda image, amount: _affine(image, shear=(0, amount)), 0, 0.3, True),
    "TranslateX": Change(lambda image, amount: _affine(image, x=amount * image.width), 0, MAX_TRANSLATION, True),
    "TranslateY": Change(lambda image, amount: _affine(image, y=amount * image.height), 0, MAX_TRANSLATION, True),
    "Rotate": Change(F.rotate, 0, 30, True),
    "Brightness": Change(lambda image, amount: F.adjust_brightness(image, 1 + amount), 0, 0.9, True),
    "Color": Change(lambda image, amount: F.adjust_saturation(image, 1 + amount), 0, 0.9, True),
    "Contrast": Change(lambda image, amount: F.adjust_contrast(image, 1 + amount), 0, 0.9, True),
    "Sharpness": Change(lambda image, amount: F.adjust_sharpness(image, 1 + amount), 0, 0.9, True),
    "Posterize": Change(lambda image, amount: F.posterize(image, round(amount)), 8, 4),
    "Solarize": Change(F.solarize, 255, 0),
    "AutoContrast": Change(lambda image, _: F.autocontrast(image)),
    "Equalize": Change(lambda image, _: F.equalize(image)),
}


@dataclass(frozen=True)
class RandAugment:
    """Applies `num_operations` changes, each drawn from all of `CHANGES`; areas from outside the crop are black."""

    num_operations: int
    magnitude: int

    def sample(self, values: RandomValues, size: int) -> Amount:
        """Samples (name, amount) of each change."""
        names = list(CHANGES)
        return tuple(self._sample_one(names[values.integer(len(names))], values) for _ in range(self.num_operations))

    def _sample_one(self, name: str, values: RandomValues) -> tuple[str, float]:
        change, fraction = CHANGES[name], self.magnitude / MAX_MAGNITUDE
        amount = change.weakest + fraction * (change.strongest - change.weakest)
        return name, -amount if change.is_signed and values.chance(0.5) else amount

    def apply(self, crop: Pixels, amount: Amount) -> Pixels:
        image = Image.fromarray(crop)
        for name, strength in amount:
            image = CHANGES[name].apply(image, strength)
        return np.array(image)
