"""Making, stopping anywhere, going on, growing: the same bytes in the end. Real processes are killed in tests/acceptance."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from builders.clone_builder import make_clone
from builders.format.errors import UserError
from builders.format.manifest import Manifest, read_manifest
from builders.format.storage import Storage
from builders.making.plan import Plan
from builders.making.verify import verify_clone


class Stop(BaseException):
    """What a kill is to the code: nothing it could catch."""


def digests(out: Path) -> dict[str, str]:
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def stop_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Lets the number-th change to the disk be the last one."""
    left = [number]

    def counted(change: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Stop
            return change(*args, **kwargs)

        return call

    for name in ("write", "put", "move", "remove_folder"):
        monkeypatch.setattr(Storage, name, counted(getattr(Storage, name)))


def test_finalise__stopped_at_every_change_it_ends_the_same(
    real_plan: Plan, finished: tuple[Path, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = digests(finished[0])
    stops = 0
    for number in range(1, 40):
        out = tmp_path / str(number)
        with monkeypatch.context() as patch:
            stop_at(patch, number)
            try:
                make_clone(real_plan, str(out))
            except Stop:
                stops += 1
        make_clone(real_plan, str(out))
        assert digests(out) == expected, f"stopped after {number} changes"
    assert stops >= 16


def test_finalise__growing_stopped_at_every_change_equals_making_it_long(
    real_plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, long = Plan(real_plan.recipe, 5), Plan(real_plan.recipe, 11)
    make_clone(long, str(tmp_path / "long"))
    expected, stops = digests(tmp_path / "long"), 0
    for number in range(1, 40):
        out = tmp_path / str(number)
        make_clone(short, str(out))
        whole_shards = {
            name: digest for name, digest in digests(out).items() if name in expected and name[-6:-4] in "00 01"
        }
        with monkeypatch.context() as patch:
            stop_at(patch, number)
            try:
                make_clone(long, str(out))
            except Stop:
                stops += 1
        make_clone(long, str(out))
        assert digests(out) == expected, f"stopped after {number} changes"
        assert whole_shards.items() <= digests(out).items() and whole_shards
    assert stops >= 16


def test_finalise__finished_shards_are_not_made_again(real_plan: Plan, tmp_path: Path) -> None:
    counts: list[int] = []
    make_clone(real_plan, str(tmp_path), shards=range(1, 3), on_images=counts.append)
    assert sum(counts) == 40 and not (tmp_path / "data").exists()
    with pytest.raises(UserError, match="unfinished"):
        read_manifest(Storage(tmp_path))
    make_clone(real_plan, str(tmp_path), on_images=counts.append)
    assert sum(counts) == real_plan.num_samples
    make_clone(real_plan, str(tmp_path), on_images=counts.append)
    assert sum(counts) == real_plan.num_samples


def test_finalise__two_workers_make_the_same_bytes(
    real_plan: Plan, finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    counts: list[int] = []
    make_clone(real_plan, str(tmp_path / "out"), num_workers=2, on_images=counts.append)
    assert digests(tmp_path / "out") == digests(finished[0])
    assert sum(counts) == real_plan.num_samples


def test_finalise__a_store_that_is_no_disk_gets_the_same_bytes(
    real_plan: Plan, finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    make_clone(real_plan, "memory://made")
    Storage("memory://made").fs.get("/made", str(tmp_path / "made"), recursive=True)
    assert digests(tmp_path / "made") == digests(finished[0])


def test_finalise__an_output_keeps_what_it_holds(real_plan: Plan, clone: Path, tmp_path: Path) -> None:
    from dataclasses import replace

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


def test_finalise__many_shards_fill_several_metadata_files(real_plan: Plan, tmp_path: Path) -> None:
    from dataclasses import replace

    plan = Plan(replace(real_plan.recipe, shard_size=1), 21)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builders.making.finalise.SHARDS_PER_METADATA_FILE", 8)
        patch.setattr("builders.making.output.SHARDS_PER_METADATA_FILE", 8)
        patch.setattr("builders.making.verify.SHARDS_PER_METADATA_FILE", 8)
        make_clone(plan, str(tmp_path / "a"))
        assert len(list((tmp_path / "a/metadata").iterdir())) == 3
        assert list(verify_clone(Storage(tmp_path / "a"))) == []
