"""RandAugment does to a crop what torchvision's does, given the same operation and strength."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import RandAugment as Reference
from torchvision.transforms.autoaugment import _apply_op
from torchvision.transforms.functional import InterpolationMode

from fakeit_train.crops.config import MAX_MAGNITUDE
from fakeit_train.crops.rand_augment import CHANGES, RandAugment
from fakeit_train.crops.random_values import random_values
from tests.fakeit_train.crops.test_crops_distribution import photographs

SIZE = 96


@pytest.mark.parametrize("name", CHANGES)
def test_rand_augment__equals_torchvision(name: str) -> None:
    crop = photographs()[0][:SIZE, :SIZE]
    strengths, is_signed = Reference()._augmentation_space(MAX_MAGNITUDE + 1, (SIZE, SIZE))[name]
    assert is_signed == CHANGES[name].is_signed
    for magnitude in (0, 5, 9, 17, 30):
        augment = RandAugment(1, magnitude)
        # Both signs occur within a few numbers.
        for number in range(6):
            ((_, amount),) = (augment._sample_one(name, random_values(0, 0, "a", number)),)
            theirs = float(strengths[magnitude]) if strengths.ndim else 0.0
            signed = -theirs if amount < 0 else theirs
            expected = _apply_op(Image.fromarray(crop), name, signed, InterpolationMode.NEAREST, None)
            assert np.array_equal(augment.apply(crop.copy(), ((name, amount),)), np.asarray(expected)), (
                magnitude,
                amount,
            )


def test_rand_augment__draws_each_operation_and_sign_equally_often() -> None:
    drawn = Counter(
        (name, np.sign(amount))
        for number in range(7000)
        for name, amount in RandAugment(2, 15).sample(random_values(0, 0, "a", number), SIZE)
    )
    by_name = Counter({name: sum(n for (one, _), n in drawn.items() if one == name) for name in CHANGES})
    assert all(abs(count - 1000) < 150 for count in by_name.values())
    assert abs(drawn["Rotate", 1.0] - drawn["Rotate", -1.0]) < 150 and drawn["Posterize", 1.0] > 850
