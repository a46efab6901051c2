from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from builders.format.errors import UserError
from builders.making.engines.base import Painted
from builders.making.painting import MAX_ATTEMPTS, PaintedSample, paint_samples
from builders.making.plan import Plan, Sample
from builders.making.recipe import Recipe

PICTURE = np.zeros((16, 16, 3), np.uint8)


class Painter:
    """Flags by a rule and remembers its batches."""

    def __init__(self, rule: str) -> None:
        self.rule = rule
        self.batches: list[list[tuple[str, int]]] = []

    def __call__(self, samples: Sequence[Sample]) -> list[Painted]:
        self.batches.append([(sample.key, sample.attempt) for sample in samples])
        return [Painted(PICTURE, self._flag(sample)) for sample in samples]

    def _flag(self, sample: Sample) -> int:
        return {"never": 0, "always": 1, "third": int(sample.seed % 3 == 0)}[self.rule]


def paint(recipe: Recipe, painter: Painter) -> tuple[list[Sample], list[PaintedSample]]:
    plan = Plan(recipe, 30)
    samples = [sample for shard in range(plan.num_shards) for sample in plan.shard_samples(shard)]
    return samples, [made for batch in paint_samples(plan, samples, painter) for made in batch]


def test_painting__batches_keep_order_and_only_the_last_is_short(recipe: Recipe) -> None:
    painter = Painter("never")
    samples, made = paint(recipe, painter)
    assert [one.sample for one in made] == samples
    assert [one.slot for one in made] == [position % 4 for position in range(len(samples))]
    assert all(len(batch) == 4 for batch in painter.batches[:-1])


@pytest.mark.parametrize("safety", ["off", "flag"])
def test_painting__flagged_images_are_kept_unless_they_are_to_be_dropped(recipe: Recipe, safety: str) -> None:
    samples, made = paint(replace(recipe, safety=safety), Painter("third"))
    assert [one.sample for one in made] == samples
    assert {one.painted.nsfw for one in made} == {0, 1}


def test_painting__dropped_images_come_again_with_the_next_attempts_seed(recipe: Recipe) -> None:
    painter = Painter("third")
    samples, made = paint(replace(recipe, safety="drop"), painter)
    assert sorted(one.position for one in made) == list(range(len(samples)))
    plan = Plan(recipe, 30)
    for one in made:
        before = samples[one.position]
        attempt = next(a for a in range(99) if plan.sample(before.label, before.index, a).seed % 3)
        assert one.sample == plan.sample(before.label, before.index, attempt)
    assert {one.sample.attempt for one in made} >= {0, 1, 2}


def test_painting__retries_fill_batches(recipe: Recipe) -> None:
    painter = Painter("third")
    paint(replace(recipe, safety="drop"), painter)
    for attempt in range(4):
        lengths = [len(batch) for batch in painter.batches if batch[0][1] == attempt]
        assert set(lengths[:-1]) <= {4}


def test_painting__an_image_that_is_always_flagged_fails_with_its_key(recipe: Recipe) -> None:
    painter = Painter("always")
    with pytest.raises(UserError, match=rf"flagged all {MAX_ATTEMPTS} attempts at n0\d_00000000, .* and \d+ more"):
        paint(replace(recipe, safety="drop"), painter)
    assert max(attempt for batch in painter.batches for _, attempt in batch) == MAX_ATTEMPTS - 1
