"""The training order with siblings: its guarantees over random settings, and clones with several images of a prompt."""

import itertools
import json
import random
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from builders.errors import UserError
from builders.format.open_clone import open_clone
from builders.format.rounds import Rounds
from fakeit_train.config import DataConfig
from fakeit_train.data.loader import OrderSampler
from fakeit_train.data.mixture import open_mixture
from fakeit_train.data.order import Order
from fakeit_train.data.siblings import Siblings, bundle, deal, shards_together, siblings_of
from tests.fakeit_train.siblings_clone import IMAGES_PER_PROMPT

GOLDEN = Path(__file__).parent / "golden_siblings.json"
"""`python -m tests.fakeit_train.data.test_siblings` regenerates this file."""


@dataclass(frozen=True)
class Settings:
    """A clone with prompts, laid out as the format lays it out, and how it is trained on."""

    order: Order
    prompts: tuple[int, ...]
    """Prompt id of each sample."""
    images_per_prompt: int
    is_regular: bool
    """Whether nothing prevents that all siblings come together."""


def random_settings(number: int) -> Settings:
    dice = random.Random(number)
    num_classes, per_shard = dice.randint(1, 6), dice.randint(1, 9)
    images_per_prompt = dice.choice((1, 2, 3, 4, 8))
    count = dice.choice([one for one in range(1, images_per_prompt + 1) if images_per_prompt % one == 0])
    is_regular = number % 2 == 0
    counts = [12] * num_classes if is_regular else [dice.randint(3, 12) for _ in range(num_classes)]
    rounds = Rounds(tuple(counts), per_shard * num_classes)
    num_rounds = images_per_prompt * dice.randint(3, 12) + (0 if is_regular else dice.randint(0, 5))
    shards: list[list[int]] = []
    for first in range(0, num_rounds, rounds.per_shard):
        shards.append([])
        for turn in range(first, min(first + rounds.per_shard, num_rounds)):
            before, after = rounds.taken(turn), rounds.taken(turn + 1)
            present = [label for label in range(num_classes) if after[label] > before[label]]
            dice.shuffle(present)
            # A tenth of the samples is left out, as conditions or broken images would.
            kept = [label for label in present if is_regular or dice.random() > 0.1]
            shards[-1] += [1000 * label + int(before[label]) // images_per_prompt for label in kept]
    length = shards_together(rounds.per_shard, images_per_prompt)
    runs = [list(one) for _, one in itertools.groupby(range(len(shards)), lambda shard: shard // length) if one]
    runs = [[shard for shard in run if shards[shard]] for run in runs]
    filled = [shard for run in runs for shard in run]
    ends = list(itertools.accumulate((len(run) for run in runs if run), initial=0))
    prompts = [np.array(shards[shard], dtype=np.int64) for shard in filled]
    nodes = dice.choice((1, 2, 3))
    largest = sum(map(len, prompts)) // nodes
    batch = nodes * max(1, min(largest, dice.randint(1, 8) * (count if is_regular else 1)))
    order = Order(
        shard_lengths=tuple(map(len, prompts)),
        global_batch_size=batch,
        seed=number,
        block_size=dice.randint(1, 5),
        num_canonical_nodes=nodes,
        siblings=Siblings(count, tuple(map(range, ends, ends[1:])), prompts.__getitem__) if count > 1 else None,
    )
    return Settings(order, tuple(np.concatenate(prompts).tolist()), images_per_prompt, is_regular)


@pytest.mark.parametrize("number", range(200))
def test_siblings__every_guarantee_of_the_order_holds(number: int) -> None:
    settings = random_settings(number)
    order, again = settings.order, random_settings(number).order
    batches = [order.global_batch(step) for step in range(3 * order.batches_per_epoch)]
    # Another process computes the same, from any step on: a resumed run on any number of ranks.
    start = len(batches) // 2
    assert [again.global_batch(step) for step in range(start, len(batches))] == batches[start:]
    for world_size in (1, 2, 3):
        slices = [list(OrderSampler(again, start, len(batches), rank, world_size)) for rank in range(world_size)]
        for batch, each in zip(batches[start:], zip(*slices, strict=True), strict=True):
            assert [sample for one in each for sample in one] == batch
    for epoch in range(3):
        of_epoch = batches[epoch * order.batches_per_epoch : (epoch + 1) * order.batches_per_epoch]
        numbers = [sample for batch in of_epoch for sample, _ in batch]
        assert {one for batch in of_epoch for _, one in batch} == {epoch}
        assert len(set(numbers)) == len(numbers) and set(numbers) <= set(range(order.num_samples))
        assert order.num_samples - len(numbers) < order.global_batch_size
    ahead = set(order.shards_ahead(start, 0, len(batches)))
    ends = list(itertools.accumulate(order.shard_lengths))
    used = {int(np.searchsorted(ends, sample, side="right")) for step in range(start, len(batches))
            for sample, _ in order.node_batch(step, 0)}  # fmt: skip
    assert used <= ahead


@pytest.mark.parametrize("number", range(0, 200, 2))
def test_siblings__come_into_the_same_batch(number: int) -> None:
    settings = random_settings(number)
    order = settings.order
    if not order.siblings or order.node_batch_size % order.siblings.count:
        return
    for step in range(order.batches_per_epoch):
        for node in range(order.num_canonical_nodes):
            found = Counter(settings.prompts[sample] for sample, _ in order.node_batch(step, node))
            assert all(times % order.siblings.count == 0 for times in found.values())


@pytest.mark.parametrize("number", range(1, 200, 2))
def test_siblings__are_rarely_cut(number: int) -> None:
    """A list can cross the end of a batch where a block begins or ends, and where batches are no multiple of the lists."""
    dice = random.Random(number)
    count, num_lists = dice.randint(2, 6), 60
    batch_size, start = count * dice.randint(1, 6), dice.randint(0, 30)
    lists = [np.arange(10 * one, 10 * one + dice.randint(1, count)) for one in range(num_lists)]
    bundles = bundle(lists, count)
    dealt = deal(bundles, start, batch_size)
    assert sorted(dealt) == sorted(np.concatenate(lists))
    batch_of = {sample: (start + position) // batch_size for position, sample in enumerate(dealt.tolist())}
    cut = sum(len({batch_of[sample] for sample in one.tolist()}) > 1 for one in bundles)
    assert cut <= 1 + sum(len(one) < count for one in bundles)


def test_siblings__fill_one_list_after_the_other() -> None:
    found = siblings_of(np.array([5, 3, 8, 1, 9, 2]), np.array([7, 7, 4, 7, 4, 7]), 2)
    assert [one.tolist() for one in found] == [[5, 3], [8, 9], [1, 2]]


def test_siblings__the_next_list_that_fits_comes_first() -> None:
    lists = [np.array([1, 2, 3]), np.array([4, 5, 6]), np.array([7])]
    assert deal(lists, 0, 4).tolist() == [1, 2, 3, 7, 4, 5, 6]
    # The first list is cut to fill the batch that has begun, and its rest is last.
    assert deal(lists, 2, 4).tolist() == [7, 1, 4, 5, 6, 2, 3]


def test_siblings__that_are_few_are_put_together() -> None:
    lists = [np.array(one) for one in ([1, 2, 3], [4], [5, 6], [7], [8, 9, 10, 11], [12])]
    found = [one.tolist() for one in bundle(lists, 4)]
    assert found == [[1, 2, 3, 4], [5, 6, 7, 12], [8, 9, 10, 11]]


@pytest.mark.parametrize(("rounds", "images", "expected"), [(8, 4, 1), (10, 4, 2), (1, 4, 4), (7, 4, 4), (6, 4, 2)])
def test_siblings__shards_stay_together_until_prompts_end_with_them(rounds: int, images: int, expected: int) -> None:
    assert shards_together(rounds, images) == expected
    assert expected * rounds % images == 0


def batches_of(order: Order) -> list[list[int]]:
    return [[number for number, _ in order.global_batch(step)] for step in range(8)]


def test_siblings__equal_the_golden_file() -> None:
    assert [batches_of(random_settings(number).order) for number in (6, 9)] == json.loads(GOLDEN.read_text())


def test_siblings__of_a_clone_come_together_and_stay_within_it(siblings_clone: Path) -> None:
    """The clone has 4 images a prompt and shards of 7 rounds, so 4 shards stay together."""
    mixture = open_mixture([str(siblings_clone)], DataConfig())
    config = DataConfig(batch_size=16, block_size=4)
    rows = [row for shard in range(len(mixture.clones[0].manifest.shards))
            for row in mixture.clones[0].metadata(shard).to_pylist()]  # fmt: skip
    prompts = [(row["label"], row["prompt"]) for row in rows]
    order = mixture.order(config, deals_siblings=True)
    assert order.siblings.units == (range(4),) if isinstance(order, Order) and order.siblings else False
    for step in range(3 * order.batches_per_epoch):
        times = Counter(prompts[number] for number, _ in order.global_batch(step))
        assert set(times.values()) == {IMAGES_PER_PROMPT}
    two = mixture.order(replace(config, siblings=2), deals_siblings=True)
    for step in range(3 * two.batches_per_epoch):
        times = Counter(prompts[number] for number, _ in two.global_batch(step))
        assert {count % 2 for count in times.values()} == {0} and len(times) > 4
    assert mixture.order(replace(config, siblings=1), deals_siblings=True) == mixture.order(config)


def test_siblings__of_each_clone_of_a_mixture_come_together(siblings_clone: Path) -> None:
    roots = [str(siblings_clone)] * 2
    config = DataConfig(batch_size=24, block_size=8, weights=(2.0, 1.0))
    for settings in (config, replace(config, weights=())):
        mixture = open_mixture(roots, settings)
        order = mixture.order(settings, deals_siblings=True)
        ids = [mixture.prompt_id(number, mixture.view(number)) for number in range(len(mixture))]
        for step in range(order.batches_per_epoch):
            times = Counter(ids[number] for number, _ in order.global_batch(step))
            assert set(times.values()) == {IMAGES_PER_PROMPT}


def test_siblings__that_are_left_alone_stay_in_the_order(siblings_clone: Path) -> None:
    config = DataConfig(batch_size=12, where=("index != 1", "index != 2", "index != 7"))
    mixture = open_mixture([str(siblings_clone)], config)
    order = mixture.order(config, deals_siblings=True)
    seen = {number for step in range(20 * order.batches_per_epoch) for number, _ in order.global_batch(step)}
    assert seen == set(range(len(mixture))) and len(mixture) < len(open_clone(str(siblings_clone)))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"siblings": 5}, "data.siblings is 5, but the clones have at most 4 images of a prompt; lower it"),
        ({"siblings": -1}, "data.siblings is -1, but must be at least 0"),
    ],
)
def test_siblings__settings_that_do_not_fit_are_reported(
    settings: dict[str, int], words: str, siblings_clone: Path
) -> None:
    with pytest.raises(UserError, match=words):
        open_mixture([str(siblings_clone)], DataConfig()).order(
            DataConfig(batch_size=8, **settings),  # type: ignore[arg-type]
            deals_siblings=True,
        )


def test_siblings__a_clone_without_prompts_is_refused(finished: tuple[Path, object]) -> None:
    mixture = open_mixture([str(finished[0])], DataConfig())
    with pytest.raises(
        UserError, match=r"has one prompt for all images of a class, so .*; make a clone with --prompts"
    ):
        mixture.order(DataConfig(batch_size=8), deals_siblings=True)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps([batches_of(random_settings(number).order) for number in (6, 9)]) + "\n")
