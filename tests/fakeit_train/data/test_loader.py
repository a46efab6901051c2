"""Properties of loading with real worker processes, over world sizes, workers, interruptions and odd shards."""

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
from fakeit_train.config import DataConfig, TrainConfig
from fakeit_train.crops.config import CropConfig, CropKind
from fakeit_train.data.loader import Batch, OrderSampler, make_loader
from fakeit_train.data.mixture import Mixture, whole
from fakeit_train.data.order import Order

SMALL = CropConfig(
    kinds=(CropKind(num_crops=1, size=8, scale=(0.3, 1.0)), CropKind(num_crops=2, size=4, scale=(0.1, 0.3)))
)


@given(st.data(), st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_loader__world_size_may_change_at_any_interruption(data: st.DataObject, num_epochs: int) -> None:
    """Runs cut at any steps and resumed on any number of ranks read the batches of the order, each rank its slice."""
    lengths = data.draw(st.lists(st.integers(1, 23), min_size=1, max_size=9))
    nodes = data.draw(st.integers(1, 3))
    share = data.draw(st.integers(1, 12))
    assume(nodes * share <= sum(lengths))
    order = Order(tuple(lengths), nodes * share, block_size=data.draw(st.integers(1, 4)), num_canonical_nodes=nodes)
    num_steps = num_epochs * order.batches_per_epoch
    cuts = sorted(data.draw(st.sets(st.integers(1, num_steps), max_size=3)) | {num_steps})
    start, seen = 0, []
    for stop in cuts:
        world_size = data.draw(st.integers(1, 4))
        ranks = [list(OrderSampler(order, start, stop, rank, world_size)) for rank in range(world_size)]
        seen += [[sample for rank in step for sample in rank] for step in zip(*ranks, strict=True)]
        start = stop
    assert seen == [order.global_batch(step) for step in range(num_steps)]
    for epoch in range(num_epochs):
        counts = Counter(sample for batch in seen for sample in batch if sample[1] == epoch)
        assert set(counts.values()) <= {1} and sum(lengths) - order.global_batch_size < len(counts) <= sum(lengths)


def batches(data: Mixture, config: TrainConfig, start: int, rank: int, world_size: int) -> Iterator[Batch]:
    order = data.order(config.data)
    return make_loader(data, config, OrderSampler(order, start, 2 * order.batches_per_epoch, rank, world_size))


@pytest.mark.parametrize(
    ("num_workers", "world_size", "start"), [(1, 2, 0), (2, 3, 3), (3, 4, 1), (0, 4, 5), (3, 1, 2)]
)
def test_loader__crops_do_not_depend_on_the_process(
    num_workers: int, world_size: int, start: int, finished: tuple[Path, Manifest]
) -> None:
    data = whole(open_clone(finished[0]))
    config = TrainConfig(data=DataConfig(batch_size=13, num_workers=0, block_size=2), crops=SMALL)
    expected = list(batches(data, config, start, 0, 1))
    config = replace(config, data=replace(config.data, num_workers=num_workers))
    ranks = [list(batches(data, config, start, rank, world_size)) for rank in range(world_size)]
    assert len(expected) > 3
    for whole_batch, pieces in zip(expected, zip(*ranks, strict=True), strict=True):
        assert whole_batch.keys == [key for piece in pieces for key in piece.keys]
        assert torch.equal(whole_batch.labels, torch.cat([piece.labels for piece in pieces]))
        for crops_of_kind, crops in enumerate(whole_batch.crops):
            assert torch.equal(crops, torch.cat([piece.crops[crops_of_kind] for piece in pieces]))
