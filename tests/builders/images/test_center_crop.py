"""The reference is torchvision itself, on a photograph that scikit-learn ships."""

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from builders.images.center_crop import MAX_ASPECT, center_crop

SIZES = [
    (500, 375), (400, 300), (512, 384), (500, 334), (640, 427), (500, 333), (500, 332), (1024, 768), (333, 251), (224, 224),
    (225, 224), (256, 256), (448, 224), (449, 224), (300, 299), (301, 225), (640, 480), (799, 600), (600, 451), (230, 223),
    (100, 75), (64, 48), (63, 47), (32, 32), (33, 32), (37, 31), (9, 8), (8, 5), (3, 2), (896, 224), (700, 525), (1023, 767),
]  # fmt: skip
"""Widths and heights, each tested in both orientations: 61 sizes that are common, odd, even, or smaller than 224."""


def photograph(width: int, height: int) -> np.ndarray:  # type: ignore[type-arg]
    from sklearn.datasets import load_sample_image

    image = Image.fromarray(load_sample_image("china.jpg"))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


def reference(size: int) -> Compose:
    return Compose([Resize(size, InterpolationMode.BICUBIC), CenterCrop(size)])


@pytest.mark.parametrize("size", sorted({turned for size in SIZES for turned in (size, size[::-1])}))
def test_center_crop__equals_torchvision_to_the_pixel(size: tuple[int, int]) -> None:
    pixels = photograph(*size)
    for side in (224, 32):
        assert (center_crop(pixels, side) == np.asarray(reference(side)(Image.fromarray(pixels)))).all()


@pytest.mark.parametrize("size", [(1000, 240), (240, 1000), (333, 80), (2000, 31)])
def test_center_crop__only_the_middle_of_a_long_strip_is_resized(size: tuple[int, int]) -> None:
    pixels = photograph(*size)
    assert max(size) > MAX_ASPECT * min(size)
    expected = np.asarray(reference(64)(Image.fromarray(pixels)), dtype=int)
    assert np.abs(center_crop(pixels, 64) - expected).max() <= 2


def test_center_crop__an_extreme_strip_takes_little_memory() -> None:
    assert center_crop(np.zeros((1, 1_000_000, 3), dtype=np.uint8), 224).shape == (224, 224, 3)
