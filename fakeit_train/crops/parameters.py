"""Samples the parameters of every crop; `on_cpu` applies them on the CPU, `on_device` in batches on the GPU.

Invariant: the parameters depend only on (seed, epoch, key, crop number) and the image's size, not on the worker or rank
that samples them. The defaults follow DINO (Caron et al., 2021): flip with probability 0.5, color jitter (0.4, 0.4,
0.2, 0.1) with 0.8, grayscale with 0.2. Blur and solarization differ between kinds of crops.
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
    """One kind of crops, such as DINO's global or local crops."""

    num_crops: int
    """Number of crops of this kind per image."""
    size: int
    """Side length in pixels."""
    scale: tuple[float, float]
    """Range of the crop's area as a fraction of the image's area."""
    blur: float = 0.0
    """Probability of a Gaussian blur."""
    solarize: float = 0.0
    """Probability of solarization, which inverts values from 128 on."""

    def __post_init__(self) -> None:
        if self.num_crops < 1 or self.size < 1 or not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UserError(
                f"num_crops {self.num_crops}, size {self.size} and scale {self.scale} are not a valid kind of crops; "
                "give num_crops and size of at least 1, and two scales above 0 and up to 1, the smaller first"
            )
        _check_chances(blur=self.blur, solarize=self.solarize)


@dataclass(frozen=True, kw_only=True)
class CropConfig:
    kinds: tuple[CropKind, ...] = (
        CropKind(num_crops=1, size=224, scale=(0.25, 1.0), blur=0.2, solarize=0.2),
        CropKind(num_crops=8, size=96, scale=(0.05, 0.25), blur=0.5),
    )
    """Kinds of crops; the crops of a kind have the same size and the same probabilities of blur and solarization."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    jitter: float = 0.8
    """Probability of color jitter."""
    jitter_strength: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    """Maximum change of brightness, contrast and saturation as a fraction (0.4: factors from 0.6 to 1.4), and maximum
    shift of the hue in turns (0.1: 36 degrees)."""
    grayscale: float = 0.2
    """Probability of conversion to grayscale."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Range of the blur's standard deviation in pixels of the crop."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of the aspect ratio (width / height) of the crop's window in the image."""

    def __post_init__(self) -> None:
        if not self.kinds:
            raise UserError("crops.kinds is empty; give at least one kind of crop")
        _check_chances(**{f"crops.{name}": getattr(self, name) for name in ("flip", "jitter", "grayscale")})
        for name, (low, high) in (("blur_sigma", self.blur_sigma), ("ratio", self.ratio)):
            if not 0 < low <= high < math.inf:
                raise UserError(f"crops.{name} is {low:g},{high:g}, but must be two numbers above 0, the smaller first")
        if min(self.jitter_strength) < 0 or self.jitter_strength[HUE] > 0.5:
            raise UserError(
                f"crops.jitter_strength is {self.jitter_strength}, but must be at least 0, and at most 0.5 for hue"
            )


def augmentation_crops(name: str, crops: CropConfig) -> CropConfig:
    """Returns the crops of an augmentation: `dino` as configured; `plain` has one crop of 8 to 100 % of the area.

    `plain` is the "PyTorch" augmentation of the paper (Tab. 2). It keeps the size of the first kind and the flip.

    Raises:
        UserError: the augmentation is unknown.
    """
    if name not in AUGMENTATIONS:
        raise UserError(f"unknown augmentation '{name}'; {suggest(name, list(AUGMENTATIONS))}")
    if name == "dino":
        return crops
    kind = CropKind(num_crops=1, size=crops.kinds[0].size, scale=(0.08, 1.0))
    return replace(crops, kinds=(kind,), jitter=0.0, grayscale=0.0)


@dataclass(frozen=True)
class RandomValues:
    """A sequence of uniform random numbers in [0, 1)."""

    values: Iterator[float] = field(repr=False)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * next(self.values)

    def chance(self, probability: float) -> bool:
        return next(self.values) < probability


VALUES_PER_CROP = 48
"""More than any crop takes: 22 for its window, 1 flip, 9 jitter, 1 grayscale, 2 blur, 1 solarization."""


def random_values(seed: int, epoch: int, key: str, crop: int) -> RandomValues:
    """Returns the random numbers of one crop: 53-bit fractions from SHAKE128 over "<seed>/<epoch>/<key>/<crop>"."""
    stream = hashlib.shake_128(f"{seed}/{epoch}/{key}/{crop}".encode()).digest(8 * VALUES_PER_CROP)
    return RandomValues(iter(((np.frombuffer(stream, dtype=">u8") >> 11) * 2.0**-53).tolist()))


@dataclass(frozen=True, slots=True)
class CropParameters:
    """The parameters of one crop, in their order of application."""

    left: int
    top: int
    wide: int
    high: int
    flip: bool
    jitter: tuple[tuple[int, float], ...]
    """(which, amount) of each color change, in order of application. Amounts of brightness, contrast and saturation are
    factors, those of hue are turns."""
    grayscale: bool
    sigma: float
    """Standard deviation of the blur in pixels of the crop; 0 for no blur."""
    solarize: bool


def sample_crops(
    height: int, width: int, config: CropConfig, seed: int, epoch: int, key: str
) -> list[list[CropParameters]]:
    """Samples the parameters of an image's crops, as one list per kind."""
    found, number = [], 0
    for kind in config.kinds:
        numbers = range(number, number + kind.num_crops)
        found.append([sample_crop(height, width, kind, config, random_values(seed, epoch, key, n)) for n in numbers])
        number += kind.num_crops
    return found


def sample_crop(height: int, width: int, kind: CropKind, config: CropConfig, draw: RandomValues) -> CropParameters:
    """Samples the parameters of one crop of an image (height, width)."""
    window = sample_window(height, width, kind.scale, config.ratio, draw)
    flip = draw.chance(config.flip)
    jitter = sample_jitter(config.jitter_strength, draw) if draw.chance(config.jitter) else ()
    grayscale = draw.chance(config.grayscale)
    sigma = draw.uniform(*config.blur_sigma) if draw.chance(kind.blur) else 0.0
    return CropParameters(*window, flip, jitter, grayscale, sigma, draw.chance(kind.solarize))


def sample_window(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], draw: RandomValues
) -> tuple[int, int, int, int]:
    """Samples left, top, width and height of a window with random area and aspect ratio (Inception crop).

    If none of ten attempts fits into the image, the window is centered.
    """
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
    """Samples amounts of brightness, contrast, saturation and hue, in random order."""
    amounts = [draw.uniform(max(0.0, 1 - s), 1 + s) for s in strength[:3]]
    amounts.append(draw.uniform(-strength[HUE], strength[HUE]))
    sort_keys = [draw.uniform() for _ in amounts]
    return tuple((which, amounts[which]) for which in sorted(range(4), key=sort_keys.__getitem__))
