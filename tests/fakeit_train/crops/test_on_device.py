"""Crops generated in batches equal those generated one by one, up to rounding."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fakeit_train.crops import on_cpu as crops
from fakeit_train.crops.on_device import PIXELS_AT_A_TIME, collect, make_on_device, pack, shift_hue
from fakeit_train.crops.parameters import HUE, CropConfig, CropKind, CropParameters, sample_crops
from tests.fakeit_train.crops.test_crops_distribution import photographs

STILL = replace(CropConfig(), flip=0.0, jitter=0.0, grayscale=0.0)
CONFIGS = {
    "cropped and resized": replace(
        STILL,
        kinds=(CropKind(num_crops=2, size=64, scale=(0.02, 1.0)), CropKind(num_crops=1, size=40, scale=(1, 1))),
    ),
    "flip": replace(STILL, kinds=(CropKind(num_crops=3, size=48, scale=(0.2, 1.0)),), flip=1.0),
    "grayscale": replace(STILL, kinds=(CropKind(num_crops=3, size=48, scale=(0.2, 1.0)),), grayscale=1.0),
    "blur": replace(STILL, kinds=(CropKind(num_crops=9, size=48, scale=(0.2, 1.0), blur=1.0),)),
    "solarization": replace(STILL, kinds=(CropKind(num_crops=3, size=48, scale=(0.2, 1.0), solarize=1.0),)),
    "color jitter without hue": replace(
        STILL,
        kinds=(CropKind(num_crops=9, size=48, scale=(0.2, 1.0)),),
        jitter=1.0,
        jitter_strength=(0.4, 0.4, 0.2, 0.0),
    ),
    "all of DINO's": CropConfig(),
}
MEAN_LEVELS = {"color jitter without hue": 0.8, "all of DINO's": 2.5, "solarization": 0.8}
"""Maximum mean difference, where it is above 0.3.

uint8 hue has steps of 1.4 degrees, and every further color change or blur rounds again.
"""


def different_images() -> list[crops.Pixels]:
    """Returns images of several sizes."""
    first, second = photographs()
    return [first, second[:200, :300], first[100:, :77]] * 11


@pytest.mark.parametrize("name", CONFIGS)
def test_on_device__equals_the_crops_of_the_cpu(name: str) -> None:
    config, images = CONFIGS[name], different_images()
    parameters = [
        sample_crops(image.shape[0], image.shape[1], config, 0, 0, str(number)) for number, image in enumerate(images)
    ]
    found = make_on_device(pack(images), [collect(list(kind)) for kind in zip(*parameters, strict=True)], config.kinds)
    for kind, made in enumerate(found):
        size = config.kinds[kind].size
        expected = np.stack(
            [
                [crops.make_crop(image, crop, size) for crop in each[kind]]
                for image, each in zip(images, parameters, strict=True)
            ]
        )
        assert made.shape == expected.shape and made.dtype == torch.uint8
        difference = np.abs(made.numpy().astype(int) - expected)
        assert difference.mean() < MEAN_LEVELS.get(name, 0.3), difference.mean()
        if name in ("cropped and resized", "flip", "blur", "grayscale"):
            assert np.quantile(difference, 0.999) <= 2


def test_on_device__large_images_are_chunks_of_their_own() -> None:
    sizes = [(400, 600), (300, 200), (3000, 4000), (10, 10)] + [(500, 500)] * 40
    images = pack([np.full((*size, 3), number, dtype=np.uint8) for number, size in enumerate(sizes)])
    chunks = list(images.chunks())
    assert [some.start for some, _ in chunks[:3]] == [0, 2, 3] and chunks[-1][0].stop == len(sizes)
    for some, padded in chunks:
        assert padded.shape[0] == 1 or padded.shape[:3].numel() <= PIXELS_AT_A_TIME
        for number, image in zip(range(some.start, some.stop), padded, strict=True):
            high, wide = sizes[number]
            assert (image[:high, :wide] == number).all() and image[high:].sum() == image[:, wide:].sum() == 0


def test_on_device__a_hue_shift_by_a_third_rotates_the_channels() -> None:
    image = torch.rand(2, 5, 5, 3) * 255
    turned = shift_hue(image, torch.tensor([1 / 3, -1 / 3])[:, None, None, None])
    assert torch.allclose(turned[0], image[0].roll(1, -1), atol=1e-2)
    assert torch.allclose(turned[1], image[1].roll(-1, -1), atol=1e-2)


def test_on_device__hue_equals_that_of_the_cpu_up_to_rounding() -> None:
    image = photographs()[0][:64, :64]
    parameters = CropParameters(0, 0, 64, 64, False, ((HUE, 0.07),), False, 0.0, False)
    kind = CropKind(num_crops=1, size=64, scale=(1, 1))
    made = make_on_device(pack([image]), [collect([[parameters]])], (kind,))[0][0, 0].numpy()
    assert np.abs(made.astype(int) - crops.make_crop(image, parameters, 64)).mean() < 2.5
