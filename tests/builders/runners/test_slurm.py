"""Tests of the Slurm runner: bash runs the script of an array job with a fake `srun`, which starts its command."""

import itertools
import os
import re
import shlex
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from builders.cli import main as cli
from builders.coordination.heartbeat import Heartbeat
from builders.coordination.signals import IS_STOPPED
from builders.coordination.status import read_status
from builders.errors import UserError
from builders.format.manifest import Manifest
from builders.make_clone import make_clone
from builders.planning.plan import Plan
from builders.real_images import RealImages
from builders.recipes.recipe import Recipe
from builders.runners.slurm import array_index, in_task_order, script, time_limit
from builders.storage.base import open_storage
from tests import in_process
from tests.builders.runners.test_local import OPTIONS, SLOW, alone, digests

__all__ = ["alone"]


def set_task(patch: pytest.MonkeyPatch, index: int, num_tasks: int) -> None:
    patch.setenv("SLURM_ARRAY_TASK_ID", str(index))
    patch.setenv("SLURM_ARRAY_TASK_MIN", "0")
    patch.setenv("SLURM_ARRAY_TASK_MAX", str(num_tasks - 1))


def test_slurm__the_index_is_relative_to_the_first_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    with pytest.raises(UserError, match="add --print"):
        array_index()
    set_task(monkeypatch, 2, 5)
    assert array_index() == (2, 5)
    monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", "1")
    assert array_index() == (1, 4)


def test_slurm__helping_tasks_begin_with_different_shards() -> None:
    orders = [in_task_order(range(10), index, 4) for index in range(4)]
    assert orders[0] == [0, 4, 8, 9, 5, 6, 7, 1, 2, 3] and orders[3] == [3, 7, 8, 9, 4, 5, 6, 0, 1, 2]
    assert all(sorted(order) == list(range(10)) for order in orders)


def test_slurm__tasks_make_the_clone_and_one_finalizes(
    real_plan: Plan, finished: tuple[Path, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    set_task(monkeypatch, 0, 3)
    manifest = make_clone(real_plan, str(out), runner_name="slurm")
    # No other task was active, so this task made all shards.
    assert manifest is not None
    assert digests(out) == digests(finished[0])
    set_task(monkeypatch, 1, 3)
    assert make_clone(real_plan, str(out), runner_name="slurm") == manifest


WARNED = f"""
import os, signal
def warn():
    if os.environ["SLURM_ARRAY_TASK_ID"] == "1" and not os.path.exists(os.environ["WARNED"]):
        os.kill(os.getpid(), signal.SIGUSR1)
{SLOW.replace("time.sleep(0.05)", "time.sleep(0.05), warn()")}
"""
"""Script that warns its task as Slurm does: the signal goes to the processes of the step, not to the script."""


def printed_script(source: Path, out: Path) -> str:
    requested = ["make", "real_images/test", str(out), "--source", str(source), *OPTIONS]
    done = subprocess.run(
        [sys.executable, "-m", "builders", *requested, "--runner", "slurm", "--tasks", "3", "--sbatch=--time=1:00:00",
         "--print"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def test_slurm__the_script_is_run_by_bash(scans: Path, alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "out with 'quotes'"
    text = printed_script(scans / "test", out)
    assert "cpus-per-task=4" in text and str(out) in text.replace("'\"'\"'", "'")
    assert "#SBATCH --array=0-2\n" in text and "#SBATCH --time=1:00:00\n" in text and "--print" not in text
    assert not out.exists()
    (tmp_path / "bin").mkdir()
    (tmp_path / "job.sh").write_text(text)
    (tmp_path / "slow.py").write_text(WARNED)
    for name, content in (
        ("srun", f'#!/bin/bash\nshift 3\nexec "{sys.executable}" "{tmp_path}/slow.py" "$@"\n'),
        ("scontrol", f'#!/bin/bash\necho "$@" >> "{tmp_path}/requeued"\n'),
    ):
        path = tmp_path / "bin" / name
        path.write_text(content)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    environment = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "SLURM_ARRAY_JOB_ID": "77"}
    environment |= {"WARNED": str(tmp_path / "warned"), "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_MAX": "2"}

    def start(index: int) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            ["bash", str(tmp_path / "job.sh")], env={**environment, "SLURM_ARRAY_TASK_ID": str(index)}, text=True
        )

    # The warned task runs first: it stops after its shard in progress, so work is left.
    assert start(1).wait(timeout=120) == IS_STOPPED
    assert (tmp_path / "requeued").read_text() == "requeue 77_1\n"
    (tmp_path / "warned").touch()
    tasks = [start(index) for index in range(3)]
    assert [task.wait(timeout=120) for task in tasks] == [0, 0, 0]
    assert digests(out) == digests(alone)


def test_slurm__options_of_sbatch_are_lines_of_the_script(real_plan: Plan) -> None:
    found = script(
        real_plan, "name", ["fakeit-build", "make"], 1000, "--partition=gpu --gres=gpu:a100:1 --comment='a b'"
    )
    # There are no more tasks than shards.
    assert f"#SBATCH --array=0-{real_plan.num_shards - 1}\n" in found
    assert "#SBATCH --partition=gpu --gres=gpu:a100:1 --comment='a b'\n" in found and "--gpus=1" not in found
    assert "#SBATCH --job-name=a-rm--rf\n" in script(real_plan, "a\nrm -rf", [], 2, "")
    with pytest.raises(UserError, match="cannot be read"):
        script(real_plan, "name", [], 3, "--comment='a")


def test_slurm__the_warning_signal_leaves_time_for_a_shard(generated: Recipe, real_plan: Plan) -> None:
    large = Plan(replace(generated, shard_size=1000), 1000)
    assert 900 < large.shard_length(0) < 1100
    found = script(large, "name", [], 3, "")
    assert f"#SBATCH --signal=USR1@{2 * large.shard_length(0)}\n" in found and "#SBATCH --gpus=1\n" in found
    found = script(real_plan, "name", [], 3, "")
    assert "#SBATCH --signal=USR1@600\n" in found and "--gpus" not in found
    assert script(large, "name", [], 3, "--signal=USR1@5").count("--signal") == 1
    assert "--signal=USR1@300\n" in script(large, "name", [], 3, "--partition=gpu --time=10:00")
    huge = Plan(replace(generated, shard_size=40_000), 40_000)
    assert "--signal=USR1@65535\n" in script(huge, "name", [], 3, "--time=2-0")


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ("--time=30", 1800),
        ("--time 30:15", 1815),
        ("-t 1:00:00", 3600),
        ("-t12:00:00", 43_200),
        ("--qos=a --time=2-12", 216_000),
        ("--time=1-02:03", 93_780),
        ("--time=1-02:03:04 -p gpu", 93_784),
        ("--time=UNLIMITED", None),
        ("--time-min=5", None),
        ("--test-only", None),
        ("", None),
    ],
)
def test_slurm__time_limits_are_read_as_sbatch_reads_them(options: str, seconds: int | None) -> None:
    assert time_limit(options.split()) == seconds


def test_slurm__the_printed_command_has_absolute_paths(
    scans: Path, tiny_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(tiny_pipeline)
    options = ["--model", "model", "--width", 16, "--height", 16, "--guidance-scale", 3.5, "--batch-size", "auto"]
    requested = ["make", "digits_sd/c_cfg2", "out", *options, "--channels-last", "--runner", "slurm", "--print"]
    done = in_process.call(cli.main, *requested)
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("srun ")]
    words = shlex.split(line)
    assert words[words.index("digits_sd/c_cfg2") + 1] == str(tmp_path / "out")
    given = dict(itertools.pairwise(words))
    assert given["--model"] == str(tmp_path / "model") and given["--revision"].startswith("sha256:")
    assert (given["--guidance-scale"], given["--batch-size"]) == ("3.5", "auto")
    assert "--channels-last" in words and "--print" not in words and "--tasks" not in words
    (tmp_path / "mine.py").write_text("TAKES_MODEL = False\ndef load(model, revision):\n    return None\n")
    checks = ("--check", "mine.py:0.5", "--check", "sharpness:3")
    checked = in_process.call(cli.main, *requested, *checks)
    assert re.search(rf" --check {tmp_path}/mine.py@sha256:[0-9a-f]{{64}}:0.5 --check sharpness:3 ", checked.stdout)
    preset = in_process.call(cli.main, *requested[:3], "--preset", "dpm8", *requested[-3:])
    assert "--preset" not in preset.stdout and " --num-inference-steps 8 " in preset.stdout
    source = in_process.call(
        cli.main, "make", "real_images/test", "s3://x/y", "--source", os.path.relpath(scans / "test"), "--runner",
        "slurm", "--print",
    )  # fmt: skip
    assert str(scans / "test") in source.stdout and " s3://x/y " in source.stdout and "--revision" not in source.stdout


def test_slurm__materialize_returns_none_while_other_tasks_work(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = str(scans / "test")
    builder = RealImages("test", source=source, shard_size=10, images_per_class=4, cache_dir=str(tmp_path))
    set_task(monkeypatch, 0, 2)
    with Heartbeat(open_storage(tmp_path / "clone"), builder.plan.recipe.hash) as other:
        other.show([1, 3])
        assert builder.materialize("clone", runner_name="slurm") is None
    assert read_status(str(tmp_path / "clone")).num_shards_done == 2
    set_task(monkeypatch, 1, 2)
    manifest = builder.materialize("clone", runner_name="slurm")
    assert manifest is not None and manifest.num_samples == builder.plan.num_samples
