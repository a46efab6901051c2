"""Mixup and cutmix equal timm's for given shares and boxes; who mixes with whom does not depend on the processes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import beta, kstest
from timm.data.mixup import Mixup, rand_bbox

from builders.errors import UserError
from builders.format.manifest import Manifest
from builders.format.open_clone import open_clone
from fakeit_train.config import DataConfig, TrainConfig
from fakeit_train.crops.config import MixConfig
from fakeit_train.crops.mixing import ALONE, Mix, cut, mix_batch, sample_mix
from fakeit_train.crops.random_values import random_values
from fakeit_train.data.loader import OrderSampler, make_loader
from fakeit_train.data.mixture import whole
from fakeit_train.objectives.cross_entropy import multi_crop_cross_entropy
from fakeit_train.settings import load_config

SIZE, NUM_CLASSES = 24, 5


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("is_cut", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.13, 0.5, 0.98])
def test_mixing__pixels_labels_and_loss_equal_timms(
    share: float, is_cut: bool, smoothing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """timm mixes image i of a batch with the one from behind; in a batch of two these are our partners."""
    generator = torch.Generator().manual_seed(0)
    crops = torch.randint(0, 256, (2, 1, SIZE, SIZE, 3), dtype=torch.uint8, generator=generator)
    labels, (x, y) = torch.tensor([3, 1]), (20, 5)
    mix = cut(share, SIZE, x, y) if is_cut else Mix(share)
    mixed, targets = mix_batch(crops, labels, [mix, mix], NUM_CLASSES)

    theirs = Mixup(mixup_alpha=1.0, cutmix_alpha=1.0, mode="elem", label_smoothing=smoothing, num_classes=NUM_CLASSES)
    shares = np.full(2, share, dtype=np.float32), np.full(2, is_cut)
    monkeypatch.setattr(theirs, "_params_per_elem", lambda _: shares)
    centers = iter([y, x, y, x])
    monkeypatch.setattr("numpy.random.randint", lambda *_, **__: next(centers))
    expected, soft = theirs(crops[:, 0].permute(0, 3, 1, 2).float(), labels)
    assert (mixed[:, 0].permute(0, 3, 1, 2).float() - expected).abs().max() <= (0 if is_cut else 0.51)

    logits = torch.randn(2, 1, NUM_CLASSES, generator=generator)
    ours = multi_crop_cross_entropy([logits], targets, label_smoothing=smoothing)
    assert torch.allclose(ours, -(soft * logits[:, 0].log_softmax(-1)).sum(), rtol=1e-5)


def test_mixing__boxes_equal_timms_for_every_center(monkeypatch: pytest.MonkeyPatch) -> None:
    for share in (0.01, 0.3, 0.75, 0.999):
        for x, y in ((0, 0), (11, 3), (SIZE - 1, SIZE - 1)):
            centers = iter([y, x])
            with monkeypatch.context() as patch:
                patch.setattr("numpy.random.randint", lambda *_, **__: next(centers))  # noqa: B023
                top, bottom, left, right = rand_bbox((SIZE, SIZE), share)
            assert cut(share, SIZE, x, y).box == (left, top, right, bottom)


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0])
def test_mixing__shares_have_the_beta_distribution(alpha: float) -> None:
    mixes = [sample_mix(MixConfig(mixup=alpha), SIZE, random_values(0, 0, str(n), "mix")) for n in range(2000)]
    assert all(mix.box is None for mix in mixes)
    assert kstest([mix.share for mix in mixes], beta(alpha, alpha).cdf).statistic < 0.044


def test_mixing__probabilities_are_those_of_the_config() -> None:
    config = MixConfig(mixup=0.8, cutmix=1.0, probability=0.6, cutmix_probability=0.25)
    mixes = [sample_mix(config, SIZE, random_values(0, 0, str(n), "mix")) for n in range(4000)]
    assert abs(sum(mix == ALONE for mix in mixes) / 4000 - 0.4) < 0.03
    assert abs(sum(mix.box is not None for mix in mixes) / 4000 - 0.15) < 0.02
    only_cut = [sample_mix(MixConfig(cutmix=1.0), SIZE, random_values(0, 0, str(n), "mix")) for n in range(50)]
    assert all(mix.box for mix in only_cut)


def loaded(clone: Path, config: TrainConfig, rank: int, world_size: int) -> list[Any]:
    data = whole(open_clone(clone))
    return list(make_loader(data, config, OrderSampler(data.order(config.data), 0, 3, rank, world_size)))


def test_mixing__a_batch_does_not_depend_on_the_number_of_processes(finished: tuple[Path, Manifest]) -> None:
    data = DataConfig(batch_size=12, num_workers=0)
    config = replace(load_config("digits_vit", []), data=data, mixing=MixConfig(mixup=0.8, cutmix=1.0))
    alone, bare = (loaded(finished[0], one, 0, 1) for one in (config, replace(config, mixing=MixConfig())))
    ranks = [loaded(finished[0], replace(config, data=replace(data, num_workers=1)), rank, 3) for rank in range(3)]
    for step, batch in enumerate(alone):
        assert torch.equal(batch.crops[0], torch.cat([rank[step].crops[0] for rank in ranks]))
        assert torch.equal(batch.labels, torch.cat([rank[step].labels for rank in ranks]))
        assert batch.labels.shape == (12, 10) and torch.allclose(batch.labels.sum(1), torch.ones(12))
        assert not torch.equal(batch.crops[0], bare[step].crops[0]) and bare[step].labels.shape == (12,)


def test_mixing__several_kinds_of_crops_are_refused() -> None:
    with pytest.raises(UserError, match="mixup and cutmix go with one kind of crops, and there are 2"):
        load_config("digits", ["mixing.mixup=0.8"])
    assert load_config("digits", ["mixing.mixup=0.8", "augmentation=plain"]).mixing.is_on is True
    with pytest.raises(UserError, match=r"mixing\.probability is 2.0"):
        MixConfig(probability=2.0)
