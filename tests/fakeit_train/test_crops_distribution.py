"""Our crops against the Pillow and torchvision composition: the same distribution, kind by kind, on photographs."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images

from fakeit_train.crop_draws import CropConfig, CropGroup, draw_crop, draws
from fakeit_train.crops import make_crop
from tests.fakeit_train.reference_crops import reference_transform

NUM_CROPS = 2000
DEFAULT = CropConfig()
BARE = replace(DEFAULT, flip=0.0, jitter=0.0, grey=0.0)
GLOBAL, LOCAL = (replace(group, num_crops=1) for group in DEFAULT.groups)
SHARP = replace(LOCAL, scale=GLOBAL.scale, blur=0.0)
"""A global crop in the size of a local one, for what does not depend on the size."""
KINDS: dict[str, tuple[CropGroup, CropConfig]] = {
    "global, all": (GLOBAL, DEFAULT),
    "local, all": (LOCAL, DEFAULT),
    "global, cut and resized": (replace(GLOBAL, blur=0.0, solarise=0.0), BARE),
    "local, cut and resized": (replace(LOCAL, blur=0.0), BARE),
    "jittered": (SHARP, replace(BARE, jitter=1.0)),
    "blurred": (replace(SHARP, blur=1.0), BARE),
    "grey": (SHARP, replace(BARE, grey=1.0)),
    "solarised": (replace(SHARP, solarise=1.0), BARE),
}
Crops = NDArray[np.uint8]


@cache
def photographs() -> tuple[Crops, ...]:
    """Two photographs of 512×384 pixels."""
    images = [
        Image.fromarray(image).resize((512, 384), Image.Resampling.BICUBIC) for image in load_sample_images().images
    ]
    return tuple(np.array(image) for image in images)


@cache
def both(kind: str) -> tuple[Crops, Crops]:
    """Ours and the reference's, (NUM_CROPS, size, size, 3) each."""
    group, config = KINDS[kind]
    pictures = photographs()
    drawn = [draw_crop(384, 512, group, config, draws(0, 0, "key", n)) for n in range(NUM_CROPS)]
    ours = [make_crop(pictures[n % 2], crop, group.size) for n, crop in enumerate(drawn)]
    torch.manual_seed(0)
    transform = reference_transform(group, config)
    images = [Image.fromarray(picture) for picture in pictures]
    return np.stack(ours), np.stack([np.asarray(transform(images[n % 2])) for n in range(NUM_CROPS)])


def gradients(crops: Crops) -> NDArray[np.float64]:
    """Mean absolute difference of neighbours, per crop: how sharp it is."""
    levels = crops.astype(np.int16)
    across = np.abs(np.diff(levels, axis=1)).mean((1, 2, 3)) + np.abs(np.diff(levels, axis=2)).mean((1, 2, 3))
    return np.asarray(across, dtype=np.float64)


MEASURES: dict[str, Callable[[Crops], NDArray[np.float64]]] = {
    "mean of red": lambda crops: crops[..., 0].mean((1, 2), dtype=np.float64),
    "mean of green": lambda crops: crops[..., 1].mean((1, 2), dtype=np.float64),
    "mean of blue": lambda crops: crops[..., 2].mean((1, 2), dtype=np.float64),
    "spread": lambda crops: crops.std((1, 2, 3), dtype=np.float64),
    "gradients": gradients,
    "colour": lambda crops: (crops.max(3).astype(np.float64) - crops.min(3)).mean((1, 2)),
    "left to right": lambda crops: crops[:, :, : crops.shape[2] // 2].mean((1, 2, 3)) - crops.mean((1, 2, 3)),
    "top to bottom": lambda crops: crops[:, : crops.shape[1] // 2].mean((1, 2, 3)) - crops.mean((1, 2, 3)),
}


@pytest.mark.parametrize(
    "kind", [kind if kind == "local, all" else pytest.param(kind, marks=pytest.mark.long) for kind in KINDS]
)
@pytest.mark.parametrize("measure", MEASURES)
def test_crops_distribution__is_the_references(kind: str, measure: str) -> None:
    """Kolmogorov-Smirnov distance of two samples of 2,000: above 0.061 once in a thousand draws of one distribution."""
    from scipy.stats import ks_2samp

    ours, reference = (MEASURES[measure](crops) for crops in both(kind))
    assert ks_2samp(ours, reference).statistic < 0.061, (
        np.quantile(ours, [0.1, 0.5, 0.9]),
        np.quantile(reference, [0.1, 0.5, 0.9]),
    )


@pytest.mark.parametrize("kind", [pytest.param("global, all", marks=pytest.mark.long), "local, all"])
def test_crops_distribution__shares_of_grey_ones(kind: str) -> None:
    shares = [np.mean([np.ptp(crop, axis=2).max() == 0 for crop in crops]) for crops in both(kind)]
    assert all(abs(share - DEFAULT.grey) < 0.03 for share in shares)


@pytest.mark.long
def test_crops_distribution__places_and_sizes() -> None:
    """On a picture whose pixels are their own places: where crops begin and how large they are."""
    places = np.zeros((192, 256, 3), dtype=np.uint8)
    places[..., 0], places[..., 1] = np.arange(256), np.arange(192)[:, None]
    image = Image.fromarray(places)
    for group in (SHARP, replace(LOCAL, blur=0.0)):
        transform = reference_transform(replace(group, size=256), BARE)
        torch.manual_seed(0)
        theirs = np.stack([np.asarray(transform(image)) for _ in range(NUM_CROPS)])
        drawn = [draw_crop(192, 256, group, BARE, draws(0, 0, "k", n)) for n in range(NUM_CROPS)]
        ours = np.stack([make_crop(places, crop, 256) for crop in drawn])
        for channel in (0, 1):
            for corner in (np.min, np.max, np.ptp):
                from scipy.stats import ks_2samp

                values = [corner(crops[..., channel], axis=(1, 2)).astype(float) for crops in (ours, theirs)]
                assert ks_2samp(*values).statistic < 0.061
