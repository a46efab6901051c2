import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from builders.classes.class_list import ClassEntry
from builders.errors import UserError
from builders.planning.plan import Plan, sample_seed
from builders.recipes.recipe import Recipe

GOLDEN = Path(__file__).parent / "golden_plan.json"  # python -m tests.builders.planning.test_plan writes it


def slow_plan(plan: Plan) -> list[tuple[int, int]]:
    """Returns label and index of every sample by the rule, round by round, unshuffled within each round."""
    counts = [entry.base_count for entry in plan.recipe.classes]
    largest = max(counts)
    return [
        (label, r * n // largest)
        for r in range(plan.num_rounds)
        for label, n in enumerate(counts)
        if (r + 1) * n // largest > r * n // largest
    ]


def golden_rows() -> list[list[object]]:
    classes = tuple(
        ClassEntry(wnid=f"n{i:08d}", name=f"class {i}", base_count=n) for i, n in enumerate((732, 1300, 1000))
    )
    plan = Plan(Recipe(name="golden", classes=classes, seed=7), 65_000)
    wheres = (0, 1, 2, 999, 1000, 12_345, plan.num_samples - 1)
    return [[p, plan.sample_at(p).key, plan.sample_at(p).seed] for p in wheres]


@pytest.mark.parametrize("num_rounds", [1, 3, 6, 13, 50])
def test_plan__counts_equal_those_of_the_slow_plan(recipe: Recipe, num_rounds: int) -> None:
    plan = Plan(recipe, num_rounds)
    fast = [(s.label, s.index) for shard in range(plan.num_shards) for s in plan.shard_samples(shard)]
    assert sorted(fast) == sorted(slow_plan(plan))
    assert len(fast) == plan.num_samples == sum(plan.shard_length(shard) for shard in range(plan.num_shards))
    assert Counter(label for label, _ in fast) == Counter(dict(enumerate(plan.class_counts().tolist())))


def test_plan__sample_at_a_position_is_the_one_in_its_shard(recipe: Recipe) -> None:
    plan = Plan(recipe, 23)
    listed = [sample for shard in range(plan.num_shards) for sample in plan.shard_samples(shard)]
    assert [plan.sample_at(position) for position in range(plan.num_samples)] == listed
    assert plan.shard_start(2) == plan.shard_length(0) + plan.shard_length(1)
    last = plan.num_shards - 1
    for shards in ([], [1], [last], [0, 2], [2, 1, 0, last], range(plan.num_shards)):
        assert plan.count_samples(shards) == sum(plan.shard_length(shard) for shard in shards)


def test_plan__a_longer_plan_begins_with_the_shorter_one(recipe: Recipe) -> None:
    short, long = Plan(recipe, 8), Plan(recipe, 31)
    assert all(short.shard_samples(s) == long.shard_samples(s) for s in range(short.num_shards - 1))


def test_plan__every_class_keeps_its_proportion_in_every_prefix(recipe: Recipe) -> None:
    for num_rounds in range(1, 40):
        for entry, count in zip(recipe.classes, Plan(recipe, num_rounds).class_counts(), strict=True):
            assert count == num_rounds * entry.base_count // 6


def test_plan__rounds_per_shard_are_rounded_exactly() -> None:
    counts = (11, 9, 10, 10, 10)  # 25 x 11 / 50 = 5.5 rounds, halves to even
    classes = tuple(ClassEntry(wnid=f"n{i}", name="", base_count=n) for i, n in enumerate(counts))
    assert Plan(Recipe(name="x", classes=classes, shard_size=25), 1).rounds.per_shard == 6


def test_plan__rounds_are_shuffled_independently(recipe: Recipe) -> None:
    equal = replace(recipe, classes=tuple(replace(entry, base_count=1) for entry in recipe.classes))
    orders = {tuple(s.label for s in Plan(equal, 50).shard_samples(0)[r : r + 3]) for r in (0, 3)}
    orders |= {tuple(Plan(replace(equal, seed=s), 5).sample_at(i).label for i in range(3)) for s in range(30)}
    assert len(orders) > 3


def test_plan__seeds_are_shared_by_recipes_that_differ_in_prompt_and_guidance(recipe: Recipe) -> None:
    other = replace(recipe, prompt="a photo of {c}", guidance_scale=1.0, shard_size=9)
    assert {s.key: s.seed for s in Plan(recipe, 6).shard_samples(0)}.items() <= {
        s.key: s.seed for s in Plan(other, 6).shard_samples(0)
    }.items()


def test_plan__seeds_are_53_bits_and_differ() -> None:
    seeds = {sample_seed(s, w, i, a) for s in range(5) for w in ("a", "b") for i in range(50) for a in range(3)}
    assert len(seeds) == 1500
    assert all(0 <= seed < 2**53 for seed in seeds)


def test_plan__samples_equal_the_golden_file() -> None:
    assert golden_rows() == json.loads(GOLDEN.read_text())


def test_plan__backgrounds_are_drawn_from_the_seed(recipe: Recipe) -> None:
    scened = replace(recipe, prompt="{c} inside {b}", scenes=("sky", "desert/sand", "lawn"))
    samples = Plan(scened, 40).shard_samples(0) + Plan(scened, 40).shard_samples(1)
    assert {s.background for s in samples} == {"sky", "desert/sand", "lawn"}
    assert any("inside sand desert" in s.prompt for s in samples)


@pytest.mark.parametrize(("changes", "rounds"), [({}, 0), ({"classes": ()}, 1), ({"prompt": "{b}"}, 1)])
def test_plan__impossible_plans_are_refused(recipe: Recipe, changes: dict[str, object], rounds: int) -> None:
    with pytest.raises(UserError):
        Plan(replace(recipe, **changes), rounds)  # type: ignore[arg-type]


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(golden_rows(), indent=1) + "\n")
