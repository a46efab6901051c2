"""The crops of an image: their random numbers, windows and operations."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from builders.errors import UserError
from fakeit_train.crops.config import CropConfig, CropKind, augmentation_crops
from fakeit_train.crops.operations import BRIGHTNESS, CONTRAST, HUE, SATURATION, ColorJitter, Erase, jitter, shift_hue
from fakeit_train.crops.pipeline import Pipeline, make_crops, make_pipelines
from fakeit_train.crops.random_values import RandomValues, random_values
from fakeit_train.crops.window import Pixels, resize, sample_window

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


def crops_of(image: Pixels, config: CropConfig, seed: int, epoch: int, key: str) -> list[Pixels]:
    return [kind[0] for kind in make_crops([(image, key, epoch)], make_pipelines(config), seed, 1)]


def cropped(image: Pixels, kind: CropKind, config: CropConfig, values: RandomValues) -> Pixels:
    pipeline = Pipeline.of(kind, config)
    return pipeline.apply(image, pipeline.sample(image.shape[0], image.shape[1], values))


def test_pipeline__shapes_and_types() -> None:
    found = crops_of(IMAGE, CONFIG, 0, 0, "a")
    assert [(c.shape, str(c.dtype)) for c in found] == [((1, 32, 32, 3), "uint8"), ((8, 16, 16, 3), "uint8")]


def test_pipeline__crops_depend_on_seed_epoch_and_key() -> None:
    def bytes_of(*names: object) -> bytes:
        return b"".join(kind.tobytes() for kind in crops_of(IMAGE, CONFIG, *names))  # type: ignore[arg-type]

    assert bytes_of(0, 0, "a") == bytes_of(0, 0, "a")
    assert len({bytes_of(0, 0, "a"), bytes_of(1, 0, "a"), bytes_of(0, 1, "a"), bytes_of(0, 0, "b")}) == 4


def test_pipeline__random_numbers_never_end_and_keep_their_beginning() -> None:
    """The reference is one long digest of SHAKE128."""
    stream = hashlib.shake_128(b"3/1/a/0").digest(8 * 500)
    expected = [int.from_bytes(stream[8 * n : 8 * n + 8], "big") / 2**64 for n in range(500)]
    values = random_values(3, 1, "a", 0)
    assert [values.uniform() for _ in range(500)] == pytest.approx(expected, abs=2**-52)


def test_pipeline__areas_and_ratios_are_within_their_ranges() -> None:
    # The values of each pixel are its coordinates.
    coordinates = np.stack(np.meshgrid(np.arange(64), np.arange(48), [0]), -1)[:, :, 0].astype(np.uint8)
    areas = []
    for number in range(500):
        left, top, wide, high = sample_window(48, 64, (0.25, 0.5), (3 / 4, 4 / 3), random_values(0, 0, "a", number))
        crop = resize(coordinates, left, top, wide, high, 200).astype(int)
        wide, high = np.ptp(crop[..., 0]) + 1, np.ptp(crop[..., 1]) + 1
        areas.append(wide * high / (64 * 48))
        assert 0.68 < wide / high < 1.48
    assert 0.22 < min(areas) < 0.28 and 0.45 < max(areas) < 0.55
    assert abs(np.mean(areas) - 0.375) < 0.01


def test_pipeline__color_changes_do_what_their_names_say() -> None:
    still = ColorJitter(1.0, (0.4, 0.4, 0.2, 0.1)).sample(constant(0.5), 8)
    assert sorted(still) == [(BRIGHTNESS, 1.0), (CONTRAST, 1.0), (SATURATION, 1.0), (HUE, 0.0)]
    for which, amount in still:
        assert np.abs(jitter(IMAGE, which, amount).astype(int) - IMAGE).mean() < 2  # hue is rounded
    assert jitter(IMAGE, BRIGHTNESS, 0.5).mean() == pytest.approx(IMAGE.mean() / 2, rel=0.02)
    assert jitter(IMAGE, CONTRAST, 0.5).std() == pytest.approx(IMAGE.std() / 2, rel=0.02)
    assert np.ptp(jitter(IMAGE, SATURATION, 0.0), axis=2).max() == 0
    red = np.full((2, 2, 3), (255, 0, 0), np.uint8)
    assert shift_hue(red, 1 / 3)[0, 0].argmax() == 1 and shift_hue(red, -1 / 3)[0, 0].argmax() == 2


def test_pipeline__solarize_and_grayscale_do_what_their_names_say() -> None:
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


def test_pipeline__plain_is_one_crop_without_color_changes() -> None:
    plain = augmentation_crops("plain", CONFIG)
    assert [(kind.num_crops, kind.size, kind.scale) for kind in plain.kinds] == [(1, 32, (0.08, 1.0))]
    assert (plain.jitter, plain.grayscale, plain.flip) == (0.0, 0.0, CONFIG.flip)
    assert augmentation_crops("dino", CONFIG) == CONFIG
    with pytest.raises(UserError, match="unknown augmentation 'dina'; did you mean dino"):
        augmentation_crops("dina", CONFIG)


def test_pipeline__a_kind_without_crops_is_left_out() -> None:
    kinds = (CONFIG.kinds[0], replace(CONFIG.kinds[1], num_crops=0))
    assert augmentation_crops("dino", replace(CONFIG, kinds=kinds)).kinds == kinds[:1]
    with pytest.raises(UserError, match=r"crops\.kinds has no crops"):
        CropConfig(kinds=kinds[1:])


def test_pipeline__operations_that_are_off_change_no_other_crop() -> None:
    """Operations take random numbers in turn, so new ones must not move those of older runs."""
    pipeline = Pipeline.of(CONFIG.kinds[0], CONFIG)
    with_more = Pipeline.of(CONFIG.kinds[0], replace(CONFIG, erasing=1.0))
    for number in range(20):
        before, after = (one.sample(48, 64, random_values(0, 0, "a", number)) for one in (pipeline, with_more))
        assert before.window == after.window and before.amounts == after.amounts[:-1]


def test_pipeline__erasing_has_the_distribution_of_torchvision() -> None:
    import torch
    from scipy.stats import ks_2samp
    from torchvision.transforms import RandomErasing

    size, scale, ratio = 224, (0.02, 0.33), (0.3, 3.3)
    ours_of = Erase(1.0, scale, ratio, (1, 2, 3))
    ours = np.array([ours_of.sample(random_values(0, 0, "a", number), size) for number in range(2000)])
    torch.manual_seed(0)
    drawn = [RandomErasing.get_params(torch.zeros(3, size, size), scale, ratio, [0.0]) for _ in range(2000)]
    theirs = np.array([(left, top, wide, high) for top, left, high, wide, _ in drawn])
    for column in range(4):
        assert ks_2samp(ours[:, column], theirs[:, column]).statistic < 0.061
    assert ks_2samp(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]).statistic < 0.061


def test_pipeline__erasing_fills_its_rectangle_alone() -> None:
    erased = Erase(1.0, (0.1, 0.2), (1, 1), (1, 2, 3)).apply(IMAGE.copy(), (5, 7, 20, 10))
    assert (erased[7:17, 5:25] == (1, 2, 3)).all()
    erased[7:17, 5:25] = IMAGE[7:17, 5:25]
    assert (erased == IMAGE).all()
    assert Erase(1.0, (1, 1), (1, 1), (0, 0, 0)).sample(constant(0.5), 8) == ()
