"""Properties of loading as a whole: real loaders with real processes, over worlds, workers, interruptions and odd shards."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from builders.format.manifest import Manifest
from builders.format.open_clone import open_clone
from fakeit_train.config import DataConfig, TrainConfig, load_config
from fakeit_train.crop_draws import CropConfig, CropGroup
from fakeit_train.data import Batch, OrderSampler, make_loader
from fakeit_train.device_crops import make_on_device
from fakeit_train.mixture import Mixture, whole
from fakeit_train.order import Order

SMALL = CropConfig(
    groups=(CropGroup(num_crops=1, size=8, scale=(0.3, 1.0)), CropGroup(num_crops=2, size=4, scale=(0.1, 0.3)))
)


@given(st.data(), st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_loading__worlds_may_change_between_interruptions_anywhere(data: st.DataObject, num_epochs: int) -> None:
    """Runs cut at any steps and gone on with by any number of ranks see the batches of the order, each rank its slice."""
    lengths = data.draw(st.lists(st.integers(1, 23), min_size=1, max_size=9))
    groups = data.draw(st.integers(1, 3))
    part = data.draw(st.integers(1, 12))
    assume(groups * part <= sum(lengths))
    order = Order(tuple(lengths), groups * part, block_size=data.draw(st.integers(1, 4)), num_groups=groups)
    num_steps = num_epochs * order.batches_per_epoch
    cuts = sorted(data.draw(st.sets(st.integers(1, num_steps), max_size=3)) | {num_steps})
    start, seen = 0, []
    for stop in cuts:
        world_size = data.draw(st.integers(1, 4))
        ranks = [list(OrderSampler(order, start, stop, rank, world_size)) for rank in range(world_size)]
        seen += [[place for rank in step for place in rank] for step in zip(*ranks, strict=True)]
        start = stop
    assert seen == [order.global_batch(step) for step in range(num_steps)]
    for epoch in range(num_epochs):
        places = Counter(place for batch in seen for place in batch if place[1] == epoch)
        assert set(places.values()) <= {1} and sum(lengths) - order.global_batch_size < len(places) <= sum(lengths)


def batches(data: Mixture, config: TrainConfig, start: int, rank: int, world_size: int) -> Iterator[Batch]:
    order = data.order(config.data)
    return make_loader(data, config, OrderSampler(order, start, 2 * order.batches_per_epoch, rank, world_size))


@pytest.mark.parametrize(
    ("num_workers", "world_size", "start"), [(1, 2, 0), (2, 3, 3), (3, 4, 1), (0, 4, 5), (3, 1, 2)]
)
def test_loading__crops_are_the_same_whatever_process_makes_them(
    num_workers: int, world_size: int, start: int, finished: tuple[Path, Manifest]
) -> None:
    data = whole(open_clone(finished[0]))
    config = TrainConfig(data=DataConfig(batch_size=13, num_workers=0, block_size=2), crops=SMALL)
    expected = list(batches(data, config, start, 0, 1))
    config = replace(config, data=replace(config.data, num_workers=num_workers))
    ranks = [list(batches(data, config, start, rank, world_size)) for rank in range(world_size)]
    assert len(expected) > 3
    for whole_batch, parts in zip(expected, zip(*ranks, strict=True), strict=True):
        assert whole_batch.keys == [key for part in parts for key in part.keys]
        assert torch.equal(whole_batch.labels, torch.cat([part.labels for part in parts]))
        for group, crops in enumerate(whole_batch.crops):
            assert torch.equal(crops, torch.cat([part.crops[group] for part in parts]))


def test_loading__for_the_device_pictures_and_draws_come_instead_of_crops(finished: tuple[Path, Manifest]) -> None:
    data = whole(open_clone(finished[0]))
    config = load_config("digits", ["data.num_workers=0", "data.batch_size=8"])
    crops = next(batches(data, config, 0, 0, 1)).crops
    batch = next(batches(data, replace(config, data=replace(config.data, crops_on_device=True)), 0, 0, 1))
    assert not batch.crops and batch.pictures is not None and batch.pictures.sizes == [(32, 32)] * 8
    for ours, made in zip(crops, make_on_device(batch.pictures, batch.drawn, config.crops.groups), strict=True):
        assert (ours.int() - made.int()).abs().float().mean() < 3
