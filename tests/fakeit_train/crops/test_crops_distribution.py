"""Our crops of photographs have the distribution of the Pillow and torchvision reference, for each kind of crops."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images

from fakeit_train.crops.config import CropConfig, CropKind
from fakeit_train.crops.pipeline import Pipeline
from fakeit_train.crops.random_values import random_values
from tests.fakeit_train.crops.reference_crops import reference_transform

NUM_CROPS = 2000
DEFAULT = CropConfig()
BARE = replace(DEFAULT, flip=0.0, jitter=0.0, grayscale=0.0)
GLOBAL, LOCAL = (replace(kind, num_crops=1) for kind in DEFAULT.kinds)
SHARP = replace(LOCAL, scale=GLOBAL.scale, blur=0.0)
"""A global crop in the size of a local one, for tests that do not depend on the size."""
KINDS: dict[str, tuple[CropKind, CropConfig]] = {
    "global, all": (GLOBAL, DEFAULT),
    "local, all": (LOCAL, DEFAULT),
    "global, cropped and resized": (replace(GLOBAL, blur=0.0, solarize=0.0), BARE),
    "local, cropped and resized": (replace(LOCAL, blur=0.0), BARE),
    "color jitter": (SHARP, replace(BARE, jitter=1.0)),
    "blur": (replace(SHARP, blur=1.0), BARE),
    "grayscale": (SHARP, replace(BARE, grayscale=1.0)),
    "solarization": (replace(SHARP, solarize=1.0), BARE),
}
Crops = NDArray[np.uint8]


@cache
def photographs() -> tuple[Crops, ...]:
    """Returns two photographs of 512×384 pixels."""
    images = [
        Image.fromarray(image).resize((512, 384), Image.Resampling.BICUBIC) for image in load_sample_images().images
    ]
    return tuple(np.array(image) for image in images)


@cache
def both(name: str) -> tuple[Crops, Crops]:
    """Returns our crops and those of the reference, (NUM_CROPS, size, size, 3) each."""
    kind, config = KINDS[name]
    images = photographs()
    pipeline = Pipeline.of(kind, config)
    parameters = [pipeline.sample(384, 512, random_values(0, 0, "key", n)) for n in range(NUM_CROPS)]
    ours = [pipeline.apply(images[n % 2], crop) for n, crop in enumerate(parameters)]
    torch.manual_seed(0)
    transform = reference_transform(kind, config)
    opened = [Image.fromarray(image) for image in images]
    return np.stack(ours), np.stack([np.asarray(transform(opened[n % 2])) for n in range(NUM_CROPS)])


def gradients(crops: Crops) -> NDArray[np.float64]:
    """Returns the sharpness of each crop: the mean absolute difference of neighboring pixels."""
    levels = crops.astype(np.int16)
    across = np.abs(np.diff(levels, axis=1)).mean((1, 2, 3)) + np.abs(np.diff(levels, axis=2)).mean((1, 2, 3))
    return np.asarray(across, dtype=np.float64)


MEASURES: dict[str, Callable[[Crops], NDArray[np.float64]]] = {
    "mean of red": lambda crops: crops[..., 0].mean((1, 2), dtype=np.float64),
    "mean of green": lambda crops: crops[..., 1].mean((1, 2), dtype=np.float64),
    "mean of blue": lambda crops: crops[..., 2].mean((1, 2), dtype=np.float64),
    "spread": lambda crops: crops.std((1, 2, 3), dtype=np.float64),
    "gradients": gradients,
    "color": lambda crops: (crops.max(3).astype(np.float64) - crops.min(3)).mean((1, 2)),
    "left to right": lambda crops: crops[:, :, : crops.shape[2] // 2].mean((1, 2, 3)) - crops.mean((1, 2, 3)),
    "top to bottom": lambda crops: crops[:, : crops.shape[1] // 2].mean((1, 2, 3)) - crops.mean((1, 2, 3)),
}


@pytest.mark.parametrize(
    "kind", [kind if kind == "local, all" else pytest.param(kind, marks=pytest.mark.long) for kind in KINDS]
)
@pytest.mark.parametrize("measure", MEASURES)
def test_crops_distribution__equals_that_of_the_reference(kind: str, measure: str) -> None:
    """Two samples of 2,000 from one distribution have a Kolmogorov-Smirnov distance above 0.061 once in 1,000 times."""
    from scipy.stats import ks_2samp

    ours, reference = (MEASURES[measure](crops) for crops in both(kind))
    assert ks_2samp(ours, reference).statistic < 0.061, (
        np.quantile(ours, [0.1, 0.5, 0.9]),
        np.quantile(reference, [0.1, 0.5, 0.9]),
    )


@pytest.mark.parametrize("kind", [pytest.param("global, all", marks=pytest.mark.long), "local, all"])
def test_crops_distribution__fraction_of_grayscale_crops(kind: str) -> None:
    fractions = [np.mean([np.ptp(crop, axis=2).max() == 0 for crop in crops]) for crops in both(kind)]
    assert all(abs(fraction - DEFAULT.grayscale) < 0.03 for fraction in fractions)


@pytest.mark.long
def test_crops_distribution__positions_and_sizes() -> None:
    """The pixel values of the image are their coordinates, so they show where crops begin and how large they are."""
    coordinates = np.zeros((192, 256, 3), dtype=np.uint8)
    coordinates[..., 0], coordinates[..., 1] = np.arange(256), np.arange(192)[:, None]
    image = Image.fromarray(coordinates)
    for kind in (SHARP, replace(LOCAL, blur=0.0)):
        transform = reference_transform(replace(kind, size=256), BARE)
        torch.manual_seed(0)
        theirs = np.stack([np.asarray(transform(image)) for _ in range(NUM_CROPS)])
        pipeline = Pipeline.of(replace(kind, size=256), BARE)
        parameters = [pipeline.sample(192, 256, random_values(0, 0, "k", n)) for n in range(NUM_CROPS)]
        ours = np.stack([pipeline.apply(coordinates, crop) for crop in parameters])
        for channel in (0, 1):
            for corner in (np.min, np.max, np.ptp):
                from scipy.stats import ks_2samp

                values = [corner(crops[..., channel], axis=(1, 2)).astype(float) for crops in (ours, theirs)]
                assert ks_2samp(*values).statistic < 0.061
