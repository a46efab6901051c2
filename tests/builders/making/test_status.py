"""How far an output is, from its files alone, on a disk and in a store."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from builders.clone_builder import make_clone
from builders.format.errors import UserError
from builders.format.manifest import Manifest
from builders.format.storage import Storage
from builders.making.claims import LEASE, RUNS, Claims
from builders.making.plan import Plan
from builders.making.status import describe, read_status


def test_status__of_nothing_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no clone and none is being made there"):
        read_status(str(tmp_path))


def test_status__done_running_and_lost(real_plan: Plan, tmp_path: Path) -> None:
    make_clone(real_plan, str(tmp_path), shards=range(2))
    storage = Storage(tmp_path)
    with Claims(storage, runner="slurm") as ours, Claims(storage) as others:
        ours.take("000002")
        others.take("000003")
        elsewhere = replace(others.run, host="elsewhere", machine="another", beat=others.run.beat - 2 * LEASE)
        storage.write(f"{RUNS}/{others.run.id}.json", json.dumps(asdict(elsewhere)).encode())
        status = read_status(str(tmp_path))
        assert (status.num_shards_done, status.num_samples_done) == (2, 31)
        assert [claim.shard for claim in status.running] == [2] and [claim.shard for claim in status.lost] == [3]
        assert [run.runner for run in status.runs] == ["slurm"]
        said = "\n".join(describe(status))
        assert "31 of 70 images (44.3%), 2 of 4 shards" in said and "lost: shards 3" in said
        assert "running: slurm on" in said and "1 shards in the making" in said
    assert not read_status(str(tmp_path)).runs


def test_status__rate_and_time_left_are_of_the_last_half_hour(real_plan: Plan, tmp_path: Path) -> None:
    make_clone(real_plan, str(tmp_path), shards=range(3))
    for path, when in zip(sorted((tmp_path / "_making").rglob("*.parquet")), (1000, 10_000, 10_010), strict=True):
        os.utime(path, (when, when))
    status = read_status(str(tmp_path), now=10_020)
    assert status.images_per_second == 2.0 and status.seconds_left == 9.5
    assert "2.0 images/s in the last half hour, 10 s left at that rate" in "\n".join(describe(status))
    assert read_status(str(tmp_path), now=20_000).images_per_second is None


def test_status__of_a_finished_clone_and_of_one_that_grows(
    finished: tuple[Path, Manifest], clone: Path, real_plan: Plan
) -> None:
    status = read_status(str(finished[0]))
    assert status.is_complete and describe(status)[-1] == "the clone is complete"
    make_clone(Plan(real_plan.recipe, 12), str(clone), shards=range(4, 5))
    status = read_status(str(clone))
    assert not status.is_complete and status.num_shards == 6 and status.num_shards_done == 5


def test_status__on_s3(real_plan: Plan, s3: str) -> None:
    make_clone(real_plan, f"{s3}/status", shards=range(1, 3))
    status = read_status(f"{s3}/status")
    assert status.num_shards_done == 2 and not status.runs and not status.failures


def test_status_command__exits_1_where_a_shard_failed(real_plan: Plan, tmp_path: Path) -> None:
    make_clone(real_plan, str(tmp_path), shards=range(1))
    command = [sys.executable, "-m", "builders", "status", str(tmp_path)]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    from builders.making.failures import Problem, write_failure

    failure = write_failure(Storage(tmp_path), real_plan, 3, Problem(cause="the model said no"), 3)
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1 and f"failed: {failure}" in done.stdout
    assert failure.first_key in done.stdout and "failed 3 times: the model said no" in done.stdout
