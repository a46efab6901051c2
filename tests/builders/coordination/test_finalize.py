"""Tests that a clone has the same bytes however often it was stopped, continued and grown.

Real processes are killed in tests/acceptance.
"""

import contextlib
import hashlib
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders.coordination import signals
from builders.coordination.heartbeat import Heartbeat
from builders.coordination.output import FINALIZING, read_state, write_target
from builders.engines import folder
from builders.errors import UserError
from builders.format.manifest import Manifest, read_manifest
from builders.format.names import TARGET
from builders.format.open_clone import open_clone
from builders.generation.generate_shard import generate_shard_tar
from builders.make_clone import make_clone
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
from builders.storage.base import open_storage
from builders.storage.local import LocalStorage
from builders.verification.regenerate import regenerate
from builders.verification.verify_clone import verify_clone


class Stop(BaseException):
    """Simulates a kill: the code under test cannot catch it."""


def digests(out: Path) -> dict[str, str]:
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def stop_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Stops the code after its first `number` changes to the disk."""
    left = [number]

    def counted(change: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Stop
            return change(*args, **kwargs)

        return call

    for name in ("write", "put", "move", "remove", "remove_all", "remove_folder", "remove_empty_folders"):
        monkeypatch.setattr(LocalStorage, name, counted(getattr(LocalStorage, name)))


def is_stopped(monkeypatch: pytest.MonkeyPatch, number: int, plan: Plan, out: Path) -> bool:
    """Makes a clone, stopped after `number` changes; returns whether it was stopped before its end."""
    with monkeypatch.context() as patch:
        stop_at(patch, number)
        try:
            make_clone(plan, str(out))
        except Stop:
            return True
    return False


def test_finalize__a_clone_stopped_at_any_change_ends_the_same(
    real_plan: Plan, finished: tuple[Path, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = digests(finished[0])
    for number in itertools.count(1):
        out = tmp_path / str(number)
        if not is_stopped(monkeypatch, number, real_plan, out):
            break
        make_clone(real_plan, str(out))
        assert digests(out) == expected, f"stopped after {number} changes"
    assert number > 16


@pytest.mark.long
def test_finalize__growth_stopped_at_any_change_equals_a_long_clone(
    real_plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, long = Plan(real_plan.recipe, 5), Plan(real_plan.recipe, 11)
    make_clone(long, str(tmp_path / "long"))
    expected = digests(tmp_path / "long")
    for number in itertools.count(1):
        out = tmp_path / str(number)
        make_clone(short, str(out))
        whole_shards = {
            name: digest for name, digest in digests(out).items() if name in expected and name[-6:-4] in "00 01"
        }
        if not is_stopped(monkeypatch, number, long, out):
            break
        make_clone(long, str(out))
        assert digests(out) == expected, f"stopped after {number} changes"
        assert whole_shards.items() <= digests(out).items() and whole_shards
    assert number > 16


@pytest.mark.parametrize("final", [5, *(pytest.param(final, marks=pytest.mark.long) for final in (8, 11, 13))])
def test_finalize__another_length_after_a_stop_gives_a_complete_clone(
    real_plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, final: int
) -> None:
    """A clone of 5 rounds, stopped while it grows to 11, is completed with another length or kept intact."""
    recipe = replace(real_plan.recipe, shard_size=40)
    make_clone(Plan(recipe, final), str(tmp_path / "expected"))
    for number in range(16):
        out = tmp_path / str(number)
        make_clone(Plan(recipe, 5), str(out))
        with monkeypatch.context() as patch, contextlib.suppress(Stop):
            stop_at(patch, number)
            make_clone(Plan(recipe, 11), str(out))
        try:
            make_clone(Plan(recipe, final), str(out))
        except UserError as error:
            assert "already holds 11 rounds" in str(error)
        else:
            found = {name: digest for name, digest in digests(out).items() if not name.startswith("_making")}
            assert found == digests(tmp_path / "expected"), f"stopped after {number} changes"
        assert list(verify_clone(str(out), deep=True)) == []


def test_finalize__a_tar_without_its_own_sidecar_does_not_count(real_plan: Plan, tmp_path: Path) -> None:
    """The last shard of 5 rounds is overwritten by that of 8 rounds, whose sidecar is never written."""
    out, last = tmp_path / "out", Plan(real_plan.recipe, 5).num_shards - 1
    make_clone(Plan(real_plan.recipe, 5), str(out), shards=range(last, last + 1))
    with pytest.MonkeyPatch.context() as patch:

        def stop(*_: object) -> None:
            raise Stop

        patch.setattr(LocalStorage, "write", stop)
        with contextlib.suppress(Stop):
            generate = folder.load(real_plan.recipe, Execution())
            list(generate_shard_tar(Plan(real_plan.recipe, 8), last, generate, Execution(), open_storage(out)))
    make_clone(Plan(real_plan.recipe, 5), str(out))
    assert list(verify_clone(str(out), deep=True)) == []


def test_finalize__temporary_files_of_a_killed_writer_are_deleted(
    real_plan: Plan, finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    make_clone(real_plan, str(out), shards=range(2))
    for name in (".README.md.host-1.tmp", "metadata/.test-00000.parquet.host-1.tmp"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(b"half")
    make_clone(real_plan, str(out))
    assert digests(out) == digests(finished[0])


def test_finalize__growing_without_the_old_metadata_is_refused_and_nothing_lost(
    real_plan: Plan, tmp_path: Path
) -> None:
    make_clone(Plan(real_plan.recipe, 5), str(tmp_path))
    (tmp_path / "metadata/test-00000.parquet").unlink()
    with pytest.raises(UserError, match="cannot grow without it"):
        make_clone(real_plan, str(tmp_path))
    assert (tmp_path / "clone.json").exists()


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_finalize__a_broken_target_is_reported(real_plan: Plan, tmp_path: Path, content: str) -> None:
    open_storage(tmp_path).write(TARGET, content.encode())
    with pytest.raises(UserError, match=r"target\.json' cannot be read"):
        make_clone(real_plan, str(tmp_path))


def test_finalize__the_shard_of_a_damaged_sidecar_is_made_again(
    real_plan: Plan, finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    make_clone(real_plan, str(tmp_path), shards=range(2))
    sorted((tmp_path / "_making").rglob("*.parquet"))[0].write_bytes(b"PAR1")
    make_clone(real_plan, str(tmp_path))
    assert digests(tmp_path) == digests(finished[0])


def test_finalize__finished_shards_are_not_made_again(real_plan: Plan, tmp_path: Path) -> None:
    counts: list[int] = []
    make_clone(real_plan, str(tmp_path), shards=range(1, 3), on_images=counts.append)
    assert sum(counts) == 40 and not (tmp_path / "data").exists()
    with pytest.raises(UserError, match="unfinished"):
        read_manifest(open_storage(tmp_path))
    make_clone(real_plan, str(tmp_path), on_images=counts.append)
    assert sum(counts) == real_plan.num_samples
    make_clone(real_plan, str(tmp_path), on_images=counts.append)
    assert sum(counts) == real_plan.num_samples


def test_finalize__two_workers_make_the_same_bytes(
    real_plan: Plan, finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    counts: list[int] = []
    make_clone(real_plan, str(tmp_path / "out"), num_workers=2, on_images=counts.append)
    assert digests(tmp_path / "out") == digests(finished[0])
    assert sum(counts) == real_plan.num_samples


def test_finalize__a_remote_store_gets_the_same_bytes(
    real_plan: Plan, finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    make_clone(real_plan, "memory://made")
    fsspec.filesystem("memory").get("/made", str(tmp_path / "made"), recursive=True)
    assert digests(tmp_path / "made") == digests(finished[0])


def test_finalize__existing_files_are_not_overwritten(real_plan: Plan, clone: Path, tmp_path: Path) -> None:
    before = digests(clone)
    with pytest.raises(UserError, match=r"different recipe.*seed 0, not 1"):
        make_clone(Plan(replace(real_plan.recipe, seed=1), 8), str(clone))
    with pytest.raises(UserError, match="already holds 8 rounds"):
        make_clone(Plan(real_plan.recipe, 7), str(clone))
    assert digests(clone) == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"thesis\.tex"):
        make_clone(real_plan, str(tmp_path / "other"))


def test_finalize__many_shards_fill_several_metadata_files(real_plan: Plan, tmp_path: Path) -> None:
    plan = Plan(replace(real_plan.recipe, shard_size=1), 21)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builders.format.manifest.SHARDS_PER_METADATA_FILE", 8)
        patch.setattr("builders.coordination.finalize.SHARDS_PER_METADATA_FILE", 8)
        patch.setattr("builders.verification.verify_clone.SHARDS_PER_METADATA_FILE", 8)
        patch.setattr("builders.verification.verify_shard.SHARDS_PER_METADATA_FILE", 8)
        make_clone(plan, str(tmp_path / "a"))
        assert len(list((tmp_path / "a/metadata").iterdir())) == 3
        assert list(verify_clone(str(tmp_path / "a"))) == []


def test_output__another_recipe_replaces_one_without_a_finished_shard(real_plan: Plan, tmp_path: Path) -> None:
    write_target(real_plan, read_state(open_storage(tmp_path)))
    other = Plan(replace(real_plan.recipe, seed=1), real_plan.num_rounds)
    manifest = make_clone(other, str(tmp_path))
    assert manifest is not None and manifest.recipe["seed"] == 1


def test_output__another_recipe_is_refused_once_a_shard_is_finished(real_plan: Plan, tmp_path: Path) -> None:
    make_clone(real_plan, str(tmp_path), shards=range(1))
    with pytest.raises(UserError, match="seed 0, not 1"):
        make_clone(Plan(replace(real_plan.recipe, seed=1), real_plan.num_rounds), str(tmp_path))


def test_output__a_clone_continues_and_grows_with_other_executions(generated: Recipe, tmp_path: Path) -> None:
    """Each shard records its execution, and `verify` and `redo` use that."""
    small, large = Plan(generated, 4), Plan(generated, 5)
    make_clone(small, str(tmp_path), shards=range(1), execution=Execution(batch_size=4))
    make_clone(small, str(tmp_path), execution=Execution(batch_size=2))
    manifest = make_clone(large, str(tmp_path), execution=Execution(batch_size=3))
    assert manifest is not None
    sizes = [manifest.executions[shard.execution]["batch_size"] for shard in manifest.shards]
    assert sizes[0] == 4 and sizes[-1] == 3 and set(sizes) == {4, 2, 3} and len(manifest.executions) == 3
    assert list(verify_clone(str(tmp_path), deep=True)) == []
    clone = open_clone(str(tmp_path))
    for shard in (0, len(sizes) - 1):
        key = clone.metadata(shard)["key"][0].as_py()
        assert regenerate(clone, key, generated.model_dir).is_identical


def test_output__an_output_of_fakeit_0_1_is_refused(real_plan: Plan, clone: Path, tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "begun")
    storage.write("_making/recipe.json", b"{}")
    with pytest.raises(UserError, match=r"begun by fakeit 0\.1"):
        make_clone(real_plan, str(tmp_path / "begun"))
    old = (clone / "clone.json").read_text().replace('"format": 2', '"format": 1')
    (clone / "clone.json").write_text(old)
    with pytest.raises(UserError, match=r"has clone format 1; use fakeit 0\.1"):
        make_clone(real_plan, str(clone))


def test_output__a_recipe_of_a_newer_version_is_read_but_not_grown(real_plan: Plan, clone: Path) -> None:
    content = json.loads((clone / "clone.json").read_text())
    content["recipe"]["adapter"], content["novelty"], content["recipe_hash"] = "lora", [1], "0" * 64
    (clone / "clone.json").write_text(json.dumps(content))
    assert len(open_clone(str(clone))) == real_plan.num_samples
    with pytest.raises(UserError, match="has fields that this version of fakeit does not know"):
        make_clone(Plan(real_plan.recipe, 9), str(clone))
    assert any("a newer fakeit (adapter)" in str(fault) for fault in verify_clone(str(clone)))


def test_finalize__a_smaller_clone_keeps_the_shards_of_a_larger_one(real_plan: Plan, tmp_path: Path) -> None:
    small, large, counts = Plan(real_plan.recipe, 5), Plan(real_plan.recipe, 11), list[int]()
    make_clone(large, str(tmp_path / "expected"))
    make_clone(large, str(tmp_path / "out"), shards=range(4, 6))
    make_clone(small, str(tmp_path / "out"))
    assert list(verify_clone(str(tmp_path / "out"), deep=True)) == []
    make_clone(large, str(tmp_path / "out"), on_images=counts.append)
    later = large.num_samples - sum(small.shard_length(shard) for shard in range(small.num_shards - 1))
    assert sum(counts) <= later
    assert digests(tmp_path / "out") == digests(tmp_path / "expected")


def test_finalize__an_interrupted_length_is_completed_before_a_new_target(real_plan: Plan, tmp_path: Path) -> None:
    small, large = Plan(real_plan.recipe, 5), Plan(real_plan.recipe, 11)
    make_clone(large, str(tmp_path / "expected"))
    out, storage = tmp_path / "out", open_storage(tmp_path / "out")
    make_clone(small, str(out), shards=range(small.num_shards))
    storage.write(FINALIZING, b'{"num_rounds": 5}')
    # Another run, of a longer clone, sets the target.
    write_target(large, read_state(storage))
    assert read_state(storage).finalizing == 5
    make_clone(large, str(out))
    assert digests(out) == digests(tmp_path / "expected")


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "another"}', '{"format": "fakeit-audit-1"}'])
def test_finalize__a_clone_with_a_strange_audit_grows(real_plan: Plan, tmp_path: Path, content: str) -> None:
    make_clone(Plan(real_plan.recipe, 5), str(tmp_path))
    (tmp_path / "audit.json").write_text(content)
    assert make_clone(real_plan, str(tmp_path)) is not None
    assert list(verify_clone(str(tmp_path))) == []


def test_clean_up__the_target_is_deleted_before_the_sidecars(
    real_plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a waiting run would make the shards again."""
    seen: list[bool] = []
    remove_all = LocalStorage.remove_all

    def watched(storage: LocalStorage, names: list[str]) -> None:
        seen.append(storage.exists(TARGET) and any(name.endswith(".parquet") for name in names))
        remove_all(storage, names)

    monkeypatch.setattr(LocalStorage, "remove_all", watched)
    assert make_clone(real_plan, str(tmp_path)) is not None
    assert seen and not any(seen)


@pytest.mark.parametrize("content", [None, b""])
def test_finalize__a_missing_or_empty_tar_is_made_again(
    real_plan: Plan, finished: tuple[Path, Manifest], tmp_path: Path, content: bytes | None
) -> None:
    make_clone(real_plan, str(tmp_path), shards=range(4))
    tar = sorted((tmp_path / "_making").rglob("*.tar"))[2]
    tar.unlink()
    if content is not None:
        tar.write_bytes(content)
    make_clone(real_plan, str(tmp_path))
    assert digests(tmp_path) == digests(finished[0])


def test_output__a_shorter_run_keeps_the_shards_of_a_longer_one(real_plan: Plan, tmp_path: Path) -> None:
    small, large = Plan(real_plan.recipe, 5), Plan(real_plan.recipe, 11)
    make_clone(large, str(tmp_path), shards=range(3, 6))
    make_clone(small, str(tmp_path), shards=range(1))
    counts: list[int] = []
    make_clone(small, str(tmp_path))
    make_clone(large, str(tmp_path), on_images=counts.append)
    made = [shard for shard in range(large.num_shards) if shard not in (3, 4, 5)]
    assert sum(counts) <= large.count_samples(made) - small.count_samples(range(small.num_shards - 1))
    assert list(verify_clone(str(tmp_path), deep=True)) == []


def test_output__fields_of_later_versions_are_ignored_or_refused(real_plan: Plan, tmp_path: Path) -> None:
    out = tmp_path / "clone"
    make_clone(Plan(real_plan.recipe, 5), str(out))
    path = out / "metadata/test-00000.parquet"
    file = pq.ParquetFile(path)
    tables = [file.read_row_group(number) for number in range(file.num_row_groups)]
    with pq.ParquetWriter(path, tables[0].append_column("later", pa.array(["x"] * len(tables[0]))).schema) as writer:
        for batch in tables:
            writer.write_table(batch.append_column("later", pa.array(["x"] * batch.num_rows)))
    open_storage(out).write(
        "_making/failures/000005.json",
        b'{"later": 1, "shard": 5, "first_key": "a", "last_key": '
        b'"b", "num_samples": 1, "num_attempts": 1, "cause": "c", "details": "", "host": "h", "time": 0}',
    )
    assert make_clone(real_plan, str(out)) is not None
    newer = tmp_path / "newer"
    make_clone(real_plan, str(newer), shards=range(1))
    target = json.loads((newer / TARGET).read_text())
    target["recipe"]["adapter"], target["recipe_hash"] = "lora", "0" * 64
    (newer / TARGET).write_text(json.dumps(target))
    with pytest.raises(UserError, match="has fields that this version of fakeit does not know"):
        make_clone(real_plan, str(newer))


def test_output__real_images_that_a_generator_was_fitted_on_are_not_forgotten(real_plan: Plan, tmp_path: Path) -> None:
    fitted = Plan(replace(real_plan.recipe, uses_real="CIFAR-10, train"), 5)
    make_clone(fitted, str(tmp_path))
    for other in ("", "CIFAR-100"):
        with pytest.raises(
            UserError, match=r"records real images 'CIFAR-10, train'.* give --uses-real 'CIFAR-10, train'"
        ):
            make_clone(Plan(replace(real_plan.recipe, uses_real=other), 8), str(tmp_path))
    assert make_clone(Plan(fitted.recipe, 8), str(tmp_path)) is not None


def test_finalize__a_run_that_waits_for_another_can_be_stopped(real_plan: Plan, tmp_path: Path) -> None:
    make_clone(real_plan, str(tmp_path), shards=range(real_plan.num_shards))
    with Heartbeat(open_storage(tmp_path), real_plan.recipe.hash) as other:
        assert other.may_finalize()
        with pytest.raises(signals.StoppedError):
            make_clone(real_plan, str(tmp_path), stop=signals.Stop(is_requested=True))
    assert make_clone(real_plan, str(tmp_path)) is not None
