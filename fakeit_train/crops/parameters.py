"""What is done to each crop of a picture: drawn here, done in `crops` (on the CPU) or `device_crops` (in batches on a device).

Invariant: what is drawn is a function of (seed, epoch, key, crop number) and the picture's size alone, whatever worker or
rank draws it. Values follow DINO (Caron et al., 2021): flip 0.5; colour jitter (0.4, 0.4, 0.2, 0.1) with p 0.8; grey 0.2;
blur and solarise by group.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from builders.errors import UserError, suggest

AUGMENTATIONS = ("dino", "plain")
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def _check_chances(**chances: float) -> None:
    for name, value in chances.items():
        if not 0 <= value <= 1:
            raise UserError(f"{name} is {value}, but must be a probability, from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class CropKind:
    num_crops: int
    """Crops of this kind per image."""
    size: int
    """Side in pixels."""
    scale: tuple[float, float]
    """Range of the share of the picture's area."""
    blur: float = 0.0
    """Probability of a Gaussian blur."""
    solarize: float = 0.0
    """Probability of inverting values from 128 on."""

    def __post_init__(self) -> None:
        if self.num_crops < 1 or self.size < 1 or not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UserError(
                f"crops {self.num_crops} x {self.size} of scale {self.scale} cannot be made; scale is within 0 to 1"
            )
        _check_chances(blur=self.blur, solarize=self.solarize)


@dataclass(frozen=True, kw_only=True)
class CropConfig:
    kinds: tuple[CropKind, ...] = (
        CropKind(num_crops=1, size=224, scale=(0.25, 1.0), blur=0.2, solarize=0.2),
        CropKind(num_crops=8, size=96, scale=(0.05, 0.25), blur=0.5),
    )
    """Kinds of crops, the ones of one size together."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    jitter: float = 0.8
    """Probability of colour jitter."""
    jitter_strength: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    """Brightness, contrast, saturation, hue."""
    grayscale: float = 0.2
    """Probability of grey."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Range of the blur's standard deviation in pixels of the crop."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of a crop's aspect ratio."""

    def __post_init__(self) -> None:
        if not self.kinds:
            raise UserError("crops.kinds is empty; give at least one kind of crop")
        _check_chances(**{f"crops.{name}": getattr(self, name) for name in ("flip", "jitter", "grayscale")})
        for name, (low, high) in (("blur_sigma", self.blur_sigma), ("ratio", self.ratio)):
            if not 0 < low <= high < math.inf:
                raise UserError(f"crops.{name} is {low:g},{high:g}, but must be two numbers above 0, the smaller first")
        if min(self.jitter_strength) < 0 or self.jitter_strength[HUE] > 0.5:
            raise UserError(
                f"crops.jitter_strength is {self.jitter_strength}, but must be from 0 on, and at most 0.5 for hue"
            )


def augmentation_crops(name: str, crops: CropConfig) -> CropConfig:
    """The crops of an augmentation: `dino` as configured, `plain` one crop of 8 to 100 % of the area, flipped or not.

    `plain` is the "PyTorch" augmentation of the paper (Tab. 2); it keeps the first group's size and the flip.
    """
    if name not in AUGMENTATIONS:
        raise UserError(f"unknown augmentation '{name}'; {suggest(name, list(AUGMENTATIONS))}")
    if name == "dino":
        return crops
    kind = CropKind(num_crops=1, size=crops.kinds[0].size, scale=(0.08, 1.0))
    return replace(crops, kinds=(kind,), jitter=0.0, grayscale=0.0)


@dataclass(frozen=True)
class RandomValues:
    """Uniform numbers in [0, 1) that a name decides, in their order."""

    values: Iterator[float] = field(repr=False)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * next(self.values)

    def chance(self, probability: float) -> bool:
        return next(self.values) < probability


VALUES_PER_CROP = 48
"""More than any crop takes: 22 for its place, 1 flip, 9 jitter, 1 grey, 2 blur, 1 solarise."""


def random_values(seed: int, epoch: int, key: str, crop: int) -> RandomValues:
    """The random numbers of one crop: 53-bit fractions from SHAKE128 over "<seed>/<epoch>/<key>/<crop>"."""
    stream = hashlib.shake_128(f"{seed}/{epoch}/{key}/{crop}".encode()).digest(8 * VALUES_PER_CROP)
    return RandomValues(iter(((np.frombuffer(stream, dtype=">u8") >> 11) * 2.0**-53).tolist()))


@dataclass(frozen=True, slots=True)
class CropParameters:
    """The steps of one crop, in the order in which they are done."""

    left: int
    top: int
    wide: int
    high: int
    flip: bool
    jitter: tuple[tuple[int, float], ...]
    """(which, amount) in the order of doing: factors of brightness, contrast and saturation, turns of the hue circle."""
    grayscale: bool
    sigma: float
    """Of the blur in pixels of the crop; 0 for none."""
    solarize: bool


def sample_crops(
    height: int, width: int, config: CropConfig, seed: int, epoch: int, key: str
) -> list[list[CropParameters]]:
    """The crops of a picture, by group."""
    found, number = [], 0
    for kind in config.kinds:
        numbers = range(number, number + kind.num_crops)
        found.append([sample_crop(height, width, kind, config, random_values(seed, epoch, key, n)) for n in numbers])
        number += kind.num_crops
    return found


def sample_crop(height: int, width: int, kind: CropKind, config: CropConfig, draw: RandomValues) -> CropParameters:
    """One crop of a picture of (height, width)."""
    window = sample_window(height, width, kind.scale, config.ratio, draw)
    flip = draw.chance(config.flip)
    jitter = sample_jitter(config.jitter_strength, draw) if draw.chance(config.jitter) else ()
    grayscale = draw.chance(config.grayscale)
    sigma = draw.uniform(*config.blur_sigma) if draw.chance(kind.blur) else 0.0
    return CropParameters(*window, flip, jitter, grayscale, sigma, draw.chance(kind.solarize))


def sample_window(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], draw: RandomValues
) -> tuple[int, int, int, int]:
    """Left, top, width and height of random area and aspect ratio (Inception crop; ten tries, then the picture's middle)."""
    for _ in range(10):
        area = height * width * draw.uniform(*scale)
        aspect = math.exp(draw.uniform(math.log(ratio[0]), math.log(ratio[1])))
        wide, high = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < high <= height:
            left, top = int(draw.uniform(0, width - wide + 1)), int(draw.uniform(0, height - high + 1))
            return left, top, wide, high
    wide, high = min(width, round(height * ratio[1])), min(height, round(width / ratio[0]))
    return (width - wide) // 2, (height - high) // 2, wide, high


def sample_jitter(strength: tuple[float, float, float, float], draw: RandomValues) -> tuple[tuple[int, float], ...]:
    """Random amounts of brightness, contrast, saturation and hue in random order."""
    amounts = [draw.uniform(max(0.0, 1 - s), 1 + s) for s in strength[:3]]
    amounts.append(draw.uniform(-strength[HUE], strength[HUE]))
    sort_keys = [draw.uniform() for _ in amounts]
    return tuple((which, amounts[which]) for which in sorted(range(4), key=sort_keys.__getitem__))
