"""The numbers of crops, their augmentation, and mixing.

The defaults follow DINO (Caron et al., 2021): flip with probability 0.5, color jitter (0.4, 0.4, 0.2, 0.1) with 0.8,
grayscale with 0.2. Blur and solarization differ between kinds of crops.
"""

import math
from dataclasses import dataclass, replace

from builders.errors import UserError, suggest

AUGMENTATIONS = ("dino", "plain")
MAX_MAGNITUDE = 30


def _check_chances(**chances: float) -> None:
    for name, value in chances.items():
        if not 0 <= value <= 1:
            raise UserError(f"{name} is {value}, but must be a probability, from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class CropKind:
    """One kind of crops, such as DINO's global or local crops."""

    num_crops: int
    """Number of crops of this kind per image; 0 for none."""
    size: int
    """Side length in pixels."""
    scale: tuple[float, float]
    """Range of the crop's area as a fraction of the image's area."""
    blur: float = 0.0
    """Probability of a Gaussian blur."""
    solarize: float = 0.0
    """Probability of solarization, which inverts values from 128 on."""

    def __post_init__(self) -> None:
        if self.num_crops < 0 or self.size < 1 or not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UserError(
                f"num_crops {self.num_crops}, size {self.size} and scale {self.scale} are not a valid kind of crops; "
                "give num_crops of at least 0, size of at least 1, and two scales above 0 and up to 1, the smaller first"
            )
        _check_chances(blur=self.blur, solarize=self.solarize)


@dataclass(frozen=True, kw_only=True)
class CropConfig:
    kinds: tuple[CropKind, ...] = (
        CropKind(num_crops=1, size=224, scale=(0.25, 1.0), blur=0.2, solarize=0.2),
        CropKind(num_crops=8, size=96, scale=(0.05, 0.25), blur=0.5),
    )
    """Kinds of crops; the crops of a kind have the same size and the same probabilities of blur and solarization."""
    plain_scale: tuple[float, float] = (0.08, 1.0)
    """Range of the area of the only crop of `augmentation=plain`, as a fraction of the image's area."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of the aspect ratio (width / height) of the crop's window in the image."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    rand_augment: int = 0
    """Number of operations of RandAugment on each crop; 0 for none."""
    rand_augment_magnitude: int = 9
    """Strength of these operations, from 0 to 30."""
    jitter: float = 0.8
    """Probability of color jitter."""
    jitter_strength: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    """Maximum change of brightness, contrast and saturation as a fraction (0.4: factors from 0.6 to 1.4), and maximum
    shift of the hue in turns (0.1: 36 degrees)."""
    grayscale: float = 0.2
    """Probability of conversion to grayscale."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Range of the blur's standard deviation in pixels of the crop."""
    erasing: float = 0.0
    """Probability of erasing a random rectangle of the crop."""
    erasing_scale: tuple[float, float] = (0.02, 1 / 3)
    """Range of the rectangle's area as a fraction of the crop's area."""
    erasing_ratio: tuple[float, float] = (0.3, 10 / 3)
    """Range of the rectangle's aspect ratio (height / width)."""
    erasing_color: tuple[int, int, int] = (124, 116, 104)
    """Red, green and blue of the rectangle, from 0 to 255; the default is the mean color of ImageNet."""

    def __post_init__(self) -> None:
        if not any(kind.num_crops for kind in self.kinds):
            raise UserError("crops.kinds has no crops; give num_crops of at least 1 to a kind")
        chances = ("flip", "jitter", "grayscale", "erasing")
        _check_chances(**{f"crops.{name}": getattr(self, name) for name in chances})
        for name in ("blur_sigma", "ratio", "plain_scale", "erasing_scale", "erasing_ratio"):
            (low, high), limit = getattr(self, name), 1 if name.endswith("scale") else math.inf
            if not 0 < low <= high <= limit or high == math.inf:
                limits = "above 0 and up to 1" if limit == 1 else "above 0"
                raise UserError(
                    f"crops.{name} is {low:g},{high:g}, but must be two numbers {limits}, the smaller first"
                )
        if min(self.jitter_strength) < 0 or self.jitter_strength[3] > 0.5:
            raise UserError(
                f"crops.jitter_strength is {self.jitter_strength}, but must be at least 0, and at most 0.5 for hue"
            )
        if self.rand_augment < 0 or not 0 <= self.rand_augment_magnitude <= MAX_MAGNITUDE:
            raise UserError(
                f"crops.rand_augment is {self.rand_augment} and its magnitude {self.rand_augment_magnitude}, but must be "
                f"at least 0, and from 0 to {MAX_MAGNITUDE}"
            )
        if not all(0 <= level <= 255 for level in self.erasing_color):
            raise UserError(f"crops.erasing_color is {self.erasing_color}, but must be three levels from 0 to 255")


@dataclass(frozen=True, kw_only=True)
class MixConfig:
    mixup: float = 0.0
    """Parameter alpha of mixup, whose shares have the distribution Beta(alpha, alpha); 0 for no mixup. DeiT has 0.8."""
    cutmix: float = 0.0
    """Parameter alpha of cutmix; 0 for no cutmix. DeiT has 1."""
    probability: float = 1.0
    """Probability that an image is mixed at all."""
    cutmix_probability: float = 0.5
    """Probability of cutmix for a mixed image, if both are on."""

    def __post_init__(self) -> None:
        if not (0 <= self.mixup < 1e3 and 0 <= self.cutmix < 1e3):
            raise UserError(
                f"mixing.mixup is {self.mixup} and cutmix {self.cutmix}, but must be at least 0, such as 0.8"
            )
        _check_chances(**{f"mixing.{name}": getattr(self, name) for name in ("probability", "cutmix_probability")})

    @property
    def is_on(self) -> bool:
        return self.probability > 0 and (self.mixup > 0 or self.cutmix > 0)


def augmentation_crops(name: str, crops: CropConfig) -> CropConfig:
    """Returns the crops of an augmentation; kinds without crops are left out.

    `dino` has all kinds as configured. `plain` has one crop an image and no color changes: the "PyTorch" augmentation of
    the paper (Tab. 2). It keeps the size of the first kind, the flip, RandAugment and erasing.

    Raises:
        UserError: the augmentation is unknown.
    """
    if name not in AUGMENTATIONS:
        raise UserError(f"unknown augmentation '{name}'; {suggest(name, list(AUGMENTATIONS))}")
    if name == "dino":
        return replace(crops, kinds=tuple(kind for kind in crops.kinds if kind.num_crops))
    kind = CropKind(num_crops=1, size=crops.kinds[0].size, scale=crops.plain_scale)
    return replace(crops, kinds=(kind,), jitter=0.0, grayscale=0.0)
