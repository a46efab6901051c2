from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from builders.errors import UserError
from fakeit_train.crops import on_cpu as crops
from fakeit_train.crops.on_cpu import Pixels, make_batch
from fakeit_train.crops.parameters import (
    BRIGHTNESS,
    CONTRAST,
    HUE,
    SATURATION,
    CropConfig,
    CropKind,
    RandomValues,
    augmentation_crops,
    random_values,
    sample_crop,
    sample_crops,
    sample_jitter,
    sample_window,
)

CONFIG = CropConfig(
    kinds=(
        CropKind(num_crops=1, size=32, scale=(0.25, 1.0), blur=0.2, solarize=0.2),
        CropKind(num_crops=8, size=16, scale=(0.05, 0.25), blur=0.5),
    )
)
IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def constant(value: float) -> RandomValues:
    def forever() -> Iterator[float]:
        while True:
            yield value

    return RandomValues(forever())


def make_crops(image: Pixels, config: CropConfig, seed: int, epoch: int, key: str) -> list[Pixels]:
    parameters = sample_crops(image.shape[0], image.shape[1], config, seed, epoch, key)
    return [kind[0] for kind in make_batch([(image, parameters)], config.kinds, 1)]


def cropped(image: Pixels, kind: CropKind, config: CropConfig, draw: RandomValues) -> Pixels:
    return crops.make_crop(image, sample_crop(image.shape[0], image.shape[1], kind, config, draw), kind.size)


def test_on_cpu__shapes_and_types() -> None:
    found = make_crops(IMAGE, CONFIG, 0, 0, "a")
    assert [(c.shape, str(c.dtype)) for c in found] == [((1, 32, 32, 3), "uint8"), ((8, 16, 16, 3), "uint8")]


def test_on_cpu__crops_depend_on_seed_epoch_and_key() -> None:
    def bytes_of(*names: object) -> bytes:
        return b"".join(kind.tobytes() for kind in make_crops(IMAGE, CONFIG, *names))  # type: ignore[arg-type]

    assert bytes_of(0, 0, "a") == bytes_of(0, 0, "a")
    assert len({bytes_of(0, 0, "a"), bytes_of(1, 0, "a"), bytes_of(0, 1, "a"), bytes_of(0, 0, "b")}) == 4


def test_on_cpu__no_crop_runs_out_of_random_numbers() -> None:
    worst = replace(CONFIG, flip=1.0, jitter=1.0, grayscale=1.0, ratio=(90.0, 100.0))
    kind = CropKind(num_crops=1, size=8, scale=(1.0, 1.0), blur=1.0, solarize=1.0)
    for number in range(50):
        cropped(IMAGE, kind, worst, random_values(0, 0, "a", number))


def test_on_cpu__areas_and_ratios_are_within_their_ranges() -> None:
    # The values of each pixel are its coordinates.
    coordinates = np.stack(np.meshgrid(np.arange(64), np.arange(48), [0]), -1)[:, :, 0].astype(np.uint8)
    areas = []
    for number in range(500):
        left, top, wide, high = sample_window(48, 64, (0.25, 0.5), (3 / 4, 4 / 3), random_values(0, 0, "a", number))
        crop = crops.resize(coordinates, left, top, wide, high, 200).astype(int)
        wide, high = np.ptp(crop[..., 0]) + 1, np.ptp(crop[..., 1]) + 1
        areas.append(wide * high / (64 * 48))
        assert 0.68 < wide / high < 1.48
    assert 0.22 < min(areas) < 0.28 and 0.45 < max(areas) < 0.55
    assert abs(np.mean(areas) - 0.375) < 0.01


def test_on_cpu__color_changes_do_what_their_names_say() -> None:
    still = sample_jitter((0.4, 0.4, 0.2, 0.1), constant(0.5))
    assert sorted(still) == [(BRIGHTNESS, 1.0), (CONTRAST, 1.0), (SATURATION, 1.0), (HUE, 0.0)]
    for which, amount in still:
        assert np.abs(crops.jitter(IMAGE, which, amount).astype(int) - IMAGE).mean() < 2  # hue is rounded
    assert crops.jitter(IMAGE, BRIGHTNESS, 0.5).mean() == pytest.approx(IMAGE.mean() / 2, rel=0.02)
    assert crops.jitter(IMAGE, CONTRAST, 0.5).std() == pytest.approx(IMAGE.std() / 2, rel=0.02)
    assert np.ptp(crops.jitter(IMAGE, SATURATION, 0.0), axis=2).max() == 0
    red = np.full((2, 2, 3), (255, 0, 0), np.uint8)
    assert crops.shift_hue(red, 1 / 3)[0, 0].argmax() == 1 and crops.shift_hue(red, -1 / 3)[0, 0].argmax() == 2


def test_on_cpu__solarize_and_grayscale_do_what_their_names_say() -> None:
    still = CropConfig(flip=0.0, jitter=0.0, grayscale=0.0)
    whole = CropKind(num_crops=1, size=48, scale=(1.0, 1.0))
    square = IMAGE[:, :48]
    draw = constant(0.5)
    plain = cropped(square, whole, replace(still, ratio=(1.0, 1.0)), draw)
    assert (plain == square).all()
    solarized = cropped(square, replace(whole, solarize=1.0), replace(still, ratio=(1.0, 1.0)), draw)
    assert (solarized == np.where(square >= 128, 255 - square, square)).all()
    grayscale = cropped(square, whole, replace(still, ratio=(1.0, 1.0), grayscale=1.0), draw)
    assert (np.ptp(grayscale, axis=2) == 0).all()


def test_on_cpu__plain_is_one_crop_without_color_changes() -> None:
    plain = augmentation_crops("plain", CONFIG)
    assert [(kind.num_crops, kind.size, kind.scale) for kind in plain.kinds] == [(1, 32, (0.08, 1.0))]
    assert (plain.jitter, plain.grayscale, plain.flip) == (0.0, 0.0, CONFIG.flip)
    assert augmentation_crops("dino", CONFIG) == CONFIG
    with pytest.raises(UserError, match="unknown augmentation 'dina'; did you mean dino"):
        augmentation_crops("dina", CONFIG)
