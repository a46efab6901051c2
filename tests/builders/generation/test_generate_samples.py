import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from builders.engines.base import GeneratedImage
from builders.errors import ShardError
from builders.generation.generate_samples import MAX_ATTEMPTS, GeneratedSample, generate_samples
from builders.planning.plan import Plan
from builders.recipes.recipe import Recipe
from builders.recipes.sample import Sample

IMAGE = np.zeros((16, 16, 3), np.uint8)


class Faulty:
    """An engine that flags or breaks images by a rule, and remembers its batches."""

    environment: dict[str, str] = {}

    def __init__(self, flagged: str = "never", broken: str = "never") -> None:
        self.flagged, self.broken = flagged, broken
        self.batches: list[list[tuple[str, int]]] = []

    def __call__(self, samples: Sequence[Sample]) -> list[GeneratedImage]:
        self.batches.append([(sample.key, sample.attempt) for sample in samples])
        return [GeneratedImage(IMAGE, int(_holds(self.flagged, s)), is_broken=_holds(self.broken, s)) for s in samples]


def _holds(rule: str, sample: Sample) -> bool:
    return {"never": False, "always": True, "third": sample.seed % 3 == 0}[rule]


def generate(recipe: Recipe, engine: Faulty) -> tuple[list[Sample], list[GeneratedSample]]:
    plan = Plan(recipe, 30)
    samples = [sample for shard in range(plan.num_shards) for sample in plan.shard_samples(shard)]
    return samples, [made for batch in generate_samples(plan, samples, engine, 4) for made in batch.kept]


def test_generate_samples__batches_keep_the_order_and_only_the_last_is_short(recipe: Recipe) -> None:
    engine = Faulty()
    samples, made = generate(recipe, engine)
    assert [one.sample for one in made] == samples and {one.verdict for one in made} == {""}
    assert [one.slot for one in made] == [position % 4 for position in range(len(samples))]
    assert all(len(batch) == 4 for batch in engine.batches[:-1])


@pytest.mark.parametrize("safety", ["off", "flag"])
def test_generate_samples__flagged_images_are_kept_unless_safety_is_drop(recipe: Recipe, safety: str) -> None:
    samples, made = generate(replace(recipe, safety=safety), Faulty(flagged="third"))
    assert [one.sample for one in made] == samples
    assert {(one.generated.nsfw, one.verdict) for one in made} == {(0, ""), (1, "nsfw")}


@pytest.mark.parametrize(("safety", "kind"), [("drop", "flagged"), ("off", "broken"), ("drop", "broken")])
def test_generate_samples__rejected_images_are_generated_again_with_the_next_seed(
    recipe: Recipe, safety: str, kind: str
) -> None:
    samples, made = generate(replace(recipe, safety=safety), Faulty(**{kind: "third"}))
    assert sorted(one.position for one in made) == list(range(len(samples)))
    plan = Plan(recipe, 30)
    for one in made:
        before = samples[one.position]
        attempt = next(a for a in range(99) if plan.sample(before.label, before.index, a).seed % 3)
        assert one.sample == plan.sample(before.label, before.index, attempt)
        assert one.verdict == ("" if attempt == 0 else {"flagged": "nsfw"}.get(kind, kind))
    assert {one.sample.attempt for one in made} >= {0, 1, 2}


def test_generate_samples__retries_run_in_full_batches(recipe: Recipe) -> None:
    engine = Faulty(flagged="third")
    generate(replace(recipe, safety="drop"), engine)
    for attempt in range(4):
        lengths = [len(batch) for batch in engine.batches if batch[0][1] == attempt]
        assert set(lengths[:-1]) <= {4}


@pytest.mark.parametrize(("kind", "verdict"), [("flagged", "nsfw"), ("broken", "broken")])
def test_generate_samples__the_last_attempt_is_kept_with_its_verdict(recipe: Recipe, kind: str, verdict: str) -> None:
    samples, made = generate(replace(recipe, safety="drop"), Faulty(**{kind: "always"}))
    assert len(made) == len(samples) and {one.sample.attempt for one in made} == {MAX_ATTEMPTS - 1}
    assert {one.verdict for one in made} == {verdict}
    assert all(one.generated.is_broken == (kind == "broken") for one in made)


def test_generate_samples__files_that_cannot_be_read_are_all_named(recipe: Recipe) -> None:
    class Unreadable(Faulty):
        def __call__(self, samples: Sequence[Sample]) -> list[GeneratedImage]:
            return [GeneratedImage(b"", problem=f"'{sample.key}' cannot be read") for sample in samples]

    with pytest.raises(ShardError, match=r"n0\d_00000000' cannot be read; .*; repair or remove them"):
        generate(recipe, Unreadable())


class Overlapping(Faulty):
    """An engine whose host part of each batch but the last waits for the device part of the next one."""

    def __init__(self, flagged: str, num_batches: int) -> None:
        super().__init__(flagged)
        self.begun = [threading.Event() for _ in range(num_batches)]
        self.num_begun = 0

    def start(self, samples: Sequence[Sample]) -> Callable[[], list[GeneratedImage]]:
        number = self.num_begun
        self.num_begun += 1
        if number < len(self.begun):
            self.begun[number].set()

        def finish() -> list[GeneratedImage]:
            if number + 1 < len(self.begun):
                assert self.begun[number + 1].wait(10)
            return self(samples)

        return finish


def test_generate_samples__host_and_device_overlap_and_change_nothing(recipe: Recipe) -> None:
    plan = Plan(replace(recipe, safety="drop"), 30)
    samples = [sample for shard in range(plan.num_shards) for sample in plan.shard_samples(shard)]
    num_batches = -(-len(samples) // 4)
    alone = [list(batch.kept) for batch in generate_samples(plan, samples, Faulty("third"), 4)]
    with ThreadPoolExecutor(1) as host:
        engine = Overlapping("third", num_batches)
        both = [list(batch.kept) for batch in generate_samples(plan, samples, engine, 4, host)]
    assert engine.num_begun > num_batches
    assert [[(one.sample, one.slot, one.verdict) for one in batch] for batch in both] == [
        [(one.sample, one.slot, one.verdict) for one in batch] for batch in alone
    ]
