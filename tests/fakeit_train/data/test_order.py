import json
from pathlib import Path

import pytest

from builders.errors import UserError
from fakeit_train.data.loader import OrderSampler
from fakeit_train.data.order import Order, permutation, rank_slice

GOLDEN = Path(__file__).parent / "golden_order.json"
"""`python -m tests.fakeit_train.data.test_order` regenerates this file."""

ORDERS = [
    Order(shard_lengths=(7, 5, 7, 7, 3, 7, 1), global_batch_size=4, block_size=2),
    Order(shard_lengths=(7, 5, 7, 7, 3, 7, 1), global_batch_size=6, block_size=3, num_canonical_nodes=3, seed=5),
    Order(shard_lengths=(40,), global_batch_size=40),
    Order(shard_lengths=(10,) * 13, global_batch_size=16, block_size=8, num_canonical_nodes=2),
]


def epoch_numbers(order: Order, epoch: int) -> list[int]:
    steps = range(epoch * order.batches_per_epoch, (epoch + 1) * order.batches_per_epoch)
    batches = [order.global_batch(step) for step in steps]
    assert all(len(batch) == order.global_batch_size and {e for _, e in batch} == {epoch} for batch in batches)
    return [number for batch in batches for number, _ in batch]


def golden_batches() -> list[list[int]]:
    return [[number for number, _ in ORDERS[1].global_batch(step)] for step in range(8)]


@pytest.mark.parametrize("order", ORDERS)
def test_order__each_sample_at_most_once_per_epoch_and_fewer_than_a_batch_left_out(order: Order) -> None:
    for epoch in range(4):
        numbers = epoch_numbers(order, epoch)
        assert len(set(numbers)) == len(numbers)
        assert set(numbers) <= set(range(order.num_samples))
        assert order.num_samples - len(numbers) < order.global_batch_size


@pytest.mark.parametrize("order", ORDERS[:2])
def test_order__different_samples_are_left_out_each_epoch(order: Order) -> None:
    left_out = [frozenset(range(order.num_samples)) - set(epoch_numbers(order, epoch)) for epoch in range(5)]
    assert len(set(left_out)) > 1
    assert len({tuple(epoch_numbers(order, epoch)) for epoch in range(5)}) == 5


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("start", [0, 1, 5])
def test_order__ranks_share_each_global_batch(order: Order, world_size: int, start: int) -> None:
    stop = start + 6
    ranks = [list(OrderSampler(order, start, stop, rank, world_size)) for rank in range(world_size)]
    for step, slices in zip(range(start, stop), zip(*ranks, strict=True), strict=True):
        assert [sample for rank_samples in slices for sample in rank_samples] == order.global_batch(step)
        assert max(map(len, slices)) - min(map(len, slices)) <= 1


def test_order__a_blocks_samples_come_from_its_shards_only() -> None:
    order = Order(shard_lengths=(10,) * 12, global_batch_size=20, block_size=2)
    for step in range(order.batches_per_epoch):
        assert len({number // 10 for number, _ in order.global_batch(step)}) == 2


def test_order__canonical_nodes_read_their_own_shards() -> None:
    order = Order(shard_lengths=(10,) * 16, global_batch_size=8, block_size=2, num_canonical_nodes=2)
    shards: list[set[int]] = [set(), set()]
    for step in range(order.batches_per_epoch):
        for node in (0, 1):
            shards[node] |= {number // 10 for number, _ in rank_slice(order.global_batch(step), node, 2)}
    assert not shards[0] & shards[1] and len(shards[0]) == 8


def test_order__equals_the_golden_file() -> None:
    assert golden_batches() == json.loads(GOLDEN.read_text())


def test_permutation__depends_only_on_its_name() -> None:
    first, same, other = permutation("a", 100), permutation("a", 100), permutation("b", 100)
    assert sorted(first) == list(range(100)) and (first == same).all() and (first != other).any()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"global_batch_size": 0}, "at least 1"),
        ({"global_batch_size": 5, "num_canonical_nodes": 2}, "5 is not divisible by 2"),
        ({"global_batch_size": 99}, "99 is larger than the 10 samples"),
    ],
)
def test_order__invalid_settings_are_reported(settings: dict[str, int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Order(shard_lengths=(10,), **{"global_batch_size": 2, **settings})  # type: ignore[arg-type]


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(golden_batches()) + "\n")
