"""Studies on pretended GPUs: a launcher in the place of Python records what it is called with, and when.

No machine of the tests has several GPUs, so nvidia-smi is a script, too.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from builders.errors import UserError
from fakeit_eval.cli.main import main
from fakeit_eval.gpu_queue import GpuQueue, _lock, list_gpus
from tests.mutants import ROOT

GPUS = [f"GPU-{number}" for number in range(4)]
LAUNCHER = """#!{python}
import json, os, pathlib, sys, time
devices, arguments = os.environ.get("CUDA_VISIBLE_DEVICES"), sys.argv[1:]
started = time.time()
is_check = arguments[0] == "-c"
if not is_check:
    time.sleep(0.3)
broken = os.environ.get("BROKEN")
status = int(broken is not None and broken in (devices or "").split(","))
if not status and not is_check:
    module = arguments[arguments.index("-m", 3) + 1] if "torch.distributed.run" in arguments else arguments[1]
    if module == "fakeit_train":
        out = pathlib.Path(arguments[arguments.index("--out") + 1])
        out.mkdir(parents=True, exist_ok=True)
        (out / "backbone.json").touch()
    if module == "builders":
        out = pathlib.Path(arguments[arguments.index("make") + 2])
        out.mkdir(parents=True, exist_ok=True)
        (out / "clone.json").touch()
    if module == "fakeit_eval" and "suite" in arguments:
        pathlib.Path(arguments[arguments.index("suite") + 1]).mkdir(parents=True, exist_ok=True)
line = dict(arguments=arguments, devices=devices, started=started, ended=time.time(), status=status)
line["threads"] = os.environ.get("OMP_NUM_THREADS")
with open({log!r}, "a") as file:
    file.write(json.dumps(line) + chr(10))
sys.exit(status)
"""
STUDY = """
import sys
from pathlib import Path
from fakeit_eval import gpu_queue
from fakeit_eval.studies.base import Options
from fakeit_eval.study import find_base, find_study
from fakeit_eval.study_runs import Job, Setting, run_all

sys.executable = {launcher!r}
gpu_queue.GpuQueue.__init__.__defaults__ = (Path({locks!r}),)
base, study = find_base("digits"), find_study("augmentation")
setting = Setting(out=Path(sys.argv[1]), jobs=2, gpus_per_run=2, workers=3, batch_size=64, options=Options(seeds=(0,)))
runs = list(dict.fromkeys(point.run for point in study.points(base, ["plain", "dino"], setting.options)))
run_all(runs, Job(base, base.suite, study.EVALUATIONS, setting))
"""


@pytest.fixture
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a folder with the launcher and nvidia-smi."""
    programs = tmp_path / "programs"
    programs.mkdir()
    log = tmp_path / "calls.jsonl"
    (programs / "launcher").write_text(LAUNCHER.format(python=sys.executable, log=str(log)))
    listing = "\n".join(f"{number}, {gpu}" for number, gpu in enumerate(GPUS))
    (programs / "nvidia-smi").write_text(f"#!/bin/sh\necho '{listing}'\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return programs


def start_study(pretended: Path, out: Path, **environment: str) -> subprocess.Popen[str]:
    code = STUDY.format(launcher=str(pretended / "launcher"), locks=str(pretended.parent / "locks"))
    command = [sys.executable, "-c", code, str(out)]
    variables = {**os.environ, **environment}
    return subprocess.Popen(command, env=variables, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def calls(pretended: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (pretended.parent / "calls.jsonl").read_text().splitlines()]


def test_gpu_queue__two_studies_never_use_one_gpu_at_the_same_time(pretended: Path, tmp_path: Path) -> None:
    studies = [start_study(pretended, tmp_path / name) for name in ("one", "two")]
    assert [study.wait(timeout=120) for study in studies] == [0, 0]
    found = calls(pretended)
    trained = [call for call in found if "fakeit_train" in call["arguments"]]
    assert len(trained) == 8 and all(len(call["devices"].split(",")) == 2 for call in trained)
    for call in trained:
        assert call["arguments"][:5] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
        assert "data.num_workers=3" in call["arguments"]
        assert call["threads"] == str(max(1, (os.cpu_count() or 1) // 4))
    evaluated = [call for call in found if "suite" in call["arguments"]]
    assert len(evaluated) == 8 and all(call["devices"] in GPUS for call in evaluated)
    assert all({"--workers", "3", "--batch-size", "64"} <= set(call["arguments"]) for call in evaluated)
    for gpu in GPUS:
        times = sorted((call["started"], call["ended"]) for call in found if gpu in call["devices"].split(","))
        assert times and all(after[0] >= before[1] for before, after in itertools.pairwise(times))


def test_gpu_queue__a_broken_gpu_is_not_used_again(pretended: Path, tmp_path: Path) -> None:
    study = start_study(pretended, tmp_path / "one", BROKEN="GPU-0")
    assert study.wait(timeout=120) == 0
    found = [call for call in calls(pretended) if call["arguments"][0] != "-c"]
    failed = [call for call in found if call["status"]]
    assert failed and all("GPU-0" in call["devices"] for call in failed)
    last = max(call["ended"] for call in failed)
    later = [call for call in found if call["started"] > last + 1]
    assert later and not any("GPU-0" in call["devices"] for call in later)
    assert len([call for call in found if "suite" in call["arguments"] and not call["status"]]) == 4


def test_gpu_queue__a_command_that_fails_on_a_working_gpu_ends_the_study(pretended: Path, tmp_path: Path) -> None:
    launcher = pretended / "launcher"
    launcher.write_text(launcher.read_text().replace("status = int(", "status = 3 if not is_check else int("))
    study = start_study(pretended, tmp_path / "one")
    _, message = study.communicate(timeout=120)
    assert study.returncode == 1 and "ended with status 3" in message


def test_gpu_queue__too_few_gpus_are_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--gpus-per-run 3 needs 3 working GPUs, but this machine has 2"):
        GpuQueue(GPUS[:2], tmp_path).check_count(3)
    with GpuQueue([], tmp_path).take(3) as gpus:
        assert gpus == []


def test_gpu_queue__only_visible_gpus_are_used(pretended: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list_gpus() == GPUS
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-0")
    assert list_gpus() == ["GPU-2", "GPU-0"]
    for hidden in ("", "-1", "-1,2"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert list_gpus() == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-12,GPU-1")
    assert list_gpus() == ["MIG-12", "GPU-1"]


def test_gpu_queue__a_command_keeps_its_gpu_after_its_study_is_killed(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\nfrom pathlib import Path\nfrom fakeit_eval.gpu_queue import GpuQueue\n"
        "queue = GpuQueue(['GPU-7'], Path(sys.argv[1]))\n"
        "with queue.take(1) as gpus:\n"
        "    child = subprocess.Popen(['sleep', '60'], pass_fds=queue.held(gpus))\n"
        "    print(child.pid, flush=True)\n    time.sleep(60)\n"
    )
    study = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert study.stdout is not None
    command = int(study.stdout.readline())
    study.kill()
    study.wait()
    assert _lock(tmp_path / "GPU-7.lock") is None
    os.kill(command, signal.SIGKILL)
    deadline, held = time.monotonic() + 30, None
    while held is None and time.monotonic() < deadline:
        held = _lock(tmp_path / "GPU-7.lock")
    assert held is not None
    os.close(held)
    # Another user's study makes and opens locks there, too.
    assert tmp_path.stat().st_mode & 0o777 == 0o777 and (tmp_path / "GPU-7.lock").stat().st_mode & 0o777 == 0o666


def test_gpu_queue__an_interrupt_starts_no_further_runs(pretended: Path, tmp_path: Path) -> None:
    study = start_study(pretended, tmp_path / "one")
    log = pretended.parent / "calls.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.02)
    study.send_signal(signal.SIGINT)
    study.wait(timeout=120)
    assert study.returncode != 0
    assert len([call for call in calls(pretended) if "suite" in call["arguments"]]) < 4


def test_gpu_queue__commands_can_be_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "study",
        "augmentation",
        "--out",
        str(tmp_path / "out"),
        "--seeds",
        "0",
        "--gpus-per-run",
        "2",
        "--print",
    ]
    main(arguments)
    lines = capsys.readouterr().out.splitlines()
    programs = [line.split()[0] for line in lines]
    assert sorted(set(programs)) == ["fakeit-build", "fakeit-eval", "python", "torchrun"]
    assert programs.count("torchrun") == programs.count("fakeit-eval") == 4 and len(set(lines)) == len(lines)
    assert all(
        "--nproc-per-node=2 -m fakeit_train digits --data" in line for line in lines if line.startswith("torchrun")
    )
    assert not list(tmp_path.rglob("*.json"))
