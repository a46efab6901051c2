import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from builders.engines.base import GeneratedImage
from builders.errors import UnreachableError
from builders.generation.generate_shard import (
    generate_shard_tar,
    read_sidecar,
    scratch_folder,
    sweep_scratch,
    tar_name,
    upload_finished_tar,
)
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
from builders.recipes.sample import Sample
from builders.storage.base import Storage, open_storage
from builders.storage.remote import RemoteStorage
from tests.conftest import EXECUTION


class Noise:
    """An engine whose images are noise from each sample's seed."""

    environment = {"device": "none"}

    def __call__(self, samples: Sequence[Sample]) -> list[GeneratedImage]:
        return [GeneratedImage(np.random.default_rng(s.seed).integers(0, 256, (16, 16, 3), np.uint8)) for s in samples]


def make(plan: Plan, shard: int, storage: Storage, scratch: str = "", execution: Execution = EXECUTION) -> int:
    return sum(number for number, *_ in generate_shard_tar(plan, shard, Noise(), execution, storage, scratch))


def test_generate_shard__sidecar_describes_the_tar(recipe: Recipe, tmp_path: Path) -> None:
    plan, storage = Plan(recipe, 6), open_storage(tmp_path)
    assert read_sidecar(plan, 1, storage) is None
    num_images = make(plan, 1, storage)
    found = read_sidecar(plan, 1, storage)
    assert found is not None and num_images == found[1].num_rows == plan.shard_length(1)
    content = (tmp_path / tar_name(plan, 1, found[0]["sha256"])).read_bytes()
    assert found[0]["num_bytes"] == len(content) and found[0]["execution"]["batch_size"] == 4
    assert found[1]["key"].to_pylist() == [sample.key for sample in plan.shard_samples(1)]


def test_generate_shard__an_engine_that_fails_leaves_nothing(recipe: Recipe, tmp_path: Path) -> None:
    calls = []

    class Fails(Noise):
        def __call__(self, samples: Sequence[Sample]) -> list[GeneratedImage]:
            calls.append(len(samples))
            if len(calls) == 2:
                raise MemoryError
            return super().__call__(samples)

    with pytest.raises(MemoryError):
        list(generate_shard_tar(Plan(recipe, 6), 0, Fails(), Execution(batch_size=2), open_storage(tmp_path)))
    assert open_storage(tmp_path).names("") == []


def test_generate_shard__a_sidecar_of_another_recipe_or_length_is_ignored(recipe: Recipe, tmp_path: Path) -> None:
    storage, last = open_storage(tmp_path), Plan(recipe, 7).num_shards - 1
    make(Plan(recipe, 7), last, storage)
    assert read_sidecar(Plan(recipe, 7), last, storage)
    assert not read_sidecar(Plan(recipe, 8), last, storage)
    assert not read_sidecar(Plan(replace(recipe, seed=1), 7), last, storage)


def test_generate_shard__a_finished_tar_stays_in_the_scratch_folder_until_it_is_uploaded(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, storage, scratch = Plan(recipe, 6), open_storage("memory://scratch-test"), str(tmp_path)
    assert not upload_finished_tar(plan, 0, storage, scratch)
    make(plan, 0, storage, scratch)
    assert storage.names("") == [] and len(waiting(tmp_path)) == 2
    assert not upload_finished_tar(Plan(replace(recipe, seed=1), 6), 0, storage, scratch)
    assert not upload_finished_tar(plan, 0, open_storage("memory://another-output"), scratch)
    with monkeypatch.context() as patch:  # the store fails between the tar and its sidecar

        def fail(*_: object) -> None:
            raise UnreachableError("no answer")

        patch.setattr(RemoteStorage, "write", fail)
        with pytest.raises(UnreachableError):
            upload_finished_tar(plan, 0, storage, scratch)
    assert len(waiting(tmp_path)) == 2
    assert upload_finished_tar(plan, 0, storage, scratch) and read_sidecar(plan, 0, storage)
    assert waiting(tmp_path) == [] and not upload_finished_tar(plan, 0, storage, scratch)


def test_generate_shard__a_cut_tar_in_the_scratch_folder_is_not_uploaded(recipe: Recipe, tmp_path: Path) -> None:
    plan, storage = Plan(recipe, 6), open_storage("memory://cut-test")
    make(plan, 0, storage, str(tmp_path))
    [tar] = tmp_path.rglob("*.tar")
    tar.write_bytes(tar.read_bytes()[:-1024])
    assert not upload_finished_tar(plan, 0, storage, str(tmp_path)) and storage.names("") == []


def test_generate_shard__half_written_files_of_dead_processes_are_deleted(recipe: Recipe, tmp_path: Path) -> None:
    plan, storage = Plan(recipe, 6), open_storage("memory://sweep-test")
    make(plan, 0, storage, str(tmp_path))
    folder = scratch_folder(storage, str(tmp_path))
    for pid in (os.getpid(), 2**22 + 1):
        (folder / f".x.tar.{socket.gethostname()}-{pid}.tmp").touch()
    (folder / ".x.tar.elsewhere-1.tmp").touch()
    sweep_scratch(storage, str(tmp_path))
    assert len(waiting(tmp_path)) == 4
    sweep_scratch(open_storage("memory://another-output"), str(tmp_path), is_finished=True)
    assert len(waiting(tmp_path)) == 4
    sweep_scratch(storage, str(tmp_path), is_finished=True)
    assert len(waiting(tmp_path)) == 2


def waiting(scratch: Path) -> list[Path]:
    return [path for path in scratch.rglob("*") if path.is_file()]
