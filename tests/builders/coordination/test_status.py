"""Tests of `status`: progress is read from the files of an output, on a disk and in a remote store."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from builders.coordination.heartbeat import Heartbeat
from builders.coordination.status import Status, describe, read_status
from builders.errors import UserError
from builders.format.manifest import Manifest, Verdicts
from builders.format.names import RUNS
from builders.make_clone import make_clone
from builders.planning.plan import Plan
from builders.recipes.recipe import Recipe
from builders.storage.base import open_storage


def test_status__an_empty_output_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no clone and none is being made there"):
        read_status(str(tmp_path))


def test_status__shows_done_running_and_lost_shards(real_plan: Plan, tmp_path: Path) -> None:
    make_clone(real_plan, str(tmp_path), shards=range(2))
    storage = open_storage(tmp_path)
    with Heartbeat(storage, runner="slurm") as ours, Heartbeat(storage) as others:
        ours.show([2])
        others.show([3])
        dead = f"{RUNS}/beef-1-a.3.json"
        storage.write(dead, b"{}")
        os.utime(tmp_path / dead, (1000, 1000))
        others.show([])
        status = read_status(str(tmp_path))
        assert (status.num_shards_done, status.num_samples_done) == (2, 31)
        assert [run.shards for run in status.runs if run.runner == "slurm"] == [[2]] and status.lost == [3]
        text = "\n".join(describe(status))
        assert "31 of 70 images (44.3%), 2 of 4 shards" in text and "lost: shards 3" in text
        assert "running: slurm on" in text and "1 shards in progress" in text
    assert not read_status(str(tmp_path)).runs


def test_status__images_and_rate_are_sums_over_the_runs(real_plan: Plan, tmp_path: Path) -> None:
    make_clone(real_plan, str(tmp_path), shards=range(1))
    with Heartbeat(open_storage(tmp_path)) as first, Heartbeat(open_storage(tmp_path)) as second:
        for heartbeat, num_images in ((first, 4), (second, 6)):
            heartbeat.summary |= {"num_images": num_images, "images_per_second": 1.0}
            heartbeat.beat()
        status = read_status(str(tmp_path))
    assert status.num_samples_done == 11 + 10 and status.images_per_second == 2.0
    assert status.seconds_left == (70 - 21) / 2 and "2.0 images/s, 24 s left at that rate" in "\n".join(
        describe(status)
    )


def test_status__broken_and_flagged_images_are_counted(recipe: Recipe, tmp_path: Path) -> None:
    status = Status(
        name="x", num_samples=9, num_shards=1, num_samples_done=9, num_shards_done=1, is_complete=True,
        is_finalizing=False, runs=[], lost=[], failures=[],
        verdicts=Verdicts(broken={"a": 2}, flagged={"b": 1, "c": 1200}),
    )  # fmt: skip
    assert describe(status)[1:3] == [
        "broken: 2 images (not finite, or of one flat color), which training leaves out",
        "flagged by the safety checker and kept: 1,201 images",
    ]


def test_status__shows_a_finished_and_a_growing_clone(
    finished: tuple[Path, Manifest], clone: Path, real_plan: Plan
) -> None:
    status = read_status(str(finished[0]))
    assert status.is_complete and describe(status)[-1] == "the clone is complete"
    make_clone(Plan(real_plan.recipe, 12), str(clone), shards=range(4, 5))
    status = read_status(str(clone))
    assert not status.is_complete and status.num_shards == 6 and status.num_shards_done == 5


def test_status__works_on_s3(real_plan: Plan, s3: str) -> None:
    make_clone(real_plan, f"{s3}/status", shards=range(1, 3))
    status = read_status(f"{s3}/status")
    assert status.num_shards_done == 2 and not status.runs and not status.failures


def test_status_command__exits_1_if_a_shard_failed(real_plan: Plan, tmp_path: Path) -> None:
    make_clone(real_plan, str(tmp_path), shards=range(1))
    command = [sys.executable, "-m", "builders", "status", str(tmp_path)]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    from builders.coordination.failures import write_failure
    from builders.coordination.policy import Problem

    failure = write_failure(open_storage(tmp_path), real_plan, 3, Problem(scope="shard", cause="the model text no"), 3)
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1 and f"failed: {failure}" in done.stdout
    assert failure.first_key in done.stdout and "failed 3 times: the model text no" in done.stdout
