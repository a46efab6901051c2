from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from builders.format.storage import Storage
from builders.making.engines.base import Painted
from builders.making.plan import Plan, Sample
from builders.making.recipe import Recipe
from builders.making.shard import make_shard, read_sidecar, tar_name


def paint_seeds(samples: Sequence[Sample]) -> list[Painted]:
    """An engine of its own kind: noise from each sample's seed."""
    return [Painted(np.random.default_rng(s.seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)) for s in samples]


def test_shard__sidecar_tells_all_of_the_tar(recipe: Recipe, tmp_path: Path) -> None:
    plan, storage = Plan(recipe, 6), Storage(tmp_path)
    seen: list[int] = []
    assert read_sidecar(plan, 1, storage) is None
    make_shard(plan, 1, paint_seeds, {"device": "none"}, storage, seen.append)
    found = read_sidecar(plan, 1, storage)
    assert found is not None and sum(seen) == found[1].num_rows == plan.shard_length(1)
    content = (tmp_path / tar_name(plan, 1, found[0]["sha256"])).read_bytes()
    assert found[0]["num_bytes"] == len(content)
    assert found[1]["key"].to_pylist() == [sample.key for sample in plan.shard_samples(1)]


def test_shard__an_engine_that_fails_leaves_nothing(recipe: Recipe, tmp_path: Path) -> None:
    calls = []

    def paint(samples: Sequence[Sample]) -> list[Painted]:
        calls.append(len(samples))
        if len(calls) == 2:
            raise MemoryError
        return paint_seeds(samples)

    with pytest.raises(MemoryError):
        make_shard(Plan(replace(recipe, batch_size=2), 6), 0, paint, {}, Storage(tmp_path), lambda n: None)
    assert Storage(tmp_path).names("") == []


def test_shard__a_sidecar_of_another_recipe_or_length_does_not_count(recipe: Recipe, tmp_path: Path) -> None:
    storage, last = Storage(tmp_path), Plan(recipe, 7).num_shards - 1
    make_shard(Plan(recipe, 7), last, paint_seeds, {}, storage, lambda n: None)
    assert read_sidecar(Plan(recipe, 7), last, storage)
    assert not read_sidecar(Plan(recipe, 8), last, storage)
    assert not read_sidecar(Plan(replace(recipe, seed=1), 7), last, storage)
