"""Tests of the local runner: any number of workers make the same files.

Dead workers are replaced. Failed shards are named, and all others are finished.
"""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from builders.classes.class_options import ClassOptions
from builders.cli import main as cli
from builders.coordination.failures import read_failures
from builders.coordination.heartbeat import Heartbeat
from builders.coordination.job import Ended, Event, Job, Task
from builders.coordination.policy import MAX_ATTEMPTS, MAX_FAILED_IN_A_ROW
from builders.coordination.signals import Stop, StoppedError
from builders.coordination.status import describe, read_status
from builders.errors import UserError
from builders.format.manifest import Manifest
from builders.format.names import RUNS, TARGET
from builders.generation.generate_shard import generate_shard_tar
from builders.make_clone import FailedShardsError, make_clone
from builders.planning.plan import Plan
from builders.real_images import RealImages
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
from builders.recipes.sample import Sample
from builders.runners import local
from builders.storage.base import open_storage
from builders.verification.verify_clone import verify_clone
from tests import in_process


def digests(out: Path) -> dict[str, str]:
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def test_local__three_workers_make_the_same_files(
    real_plan: Plan, finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    counts: list[int] = []
    make_clone(real_plan, str(tmp_path / "out"), num_workers=3, on_images=counts.append)
    assert digests(tmp_path / "out") == digests(finished[0]) and sum(counts) == real_plan.num_samples


def worker_pids() -> list[int]:
    """Returns the ids of this process's worker processes."""
    children = Path(f"/proc/self/task/{threading.main_thread().native_id}/children").read_text().split()
    names = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children if Path(f"/proc/{pid}").exists()}
    return [int(pid) for pid, name in names.items() if b"runners.worker" in name]


@pytest.mark.long
def test_local__killed_workers_are_replaced(generated: Recipe, tmp_path: Path) -> None:
    plan = Plan(replace(generated, num_inference_steps=20), 4)
    make_clone(plan, str(tmp_path / "alone"))
    killed: list[int] = []
    is_over = threading.Event()

    def kill() -> None:
        while not is_over.wait(0.2) and len(killed) < 2:
            started = list((tmp_path / "out" / "_making").rglob(".*.tar.*.tmp"))
            workers = [pid for pid in worker_pids() if pid not in killed]
            if started and workers:
                os.kill(workers[0], signal.SIGKILL)
                killed.append(workers[0])
                time.sleep(1)

    killer = threading.Thread(target=kill)
    killer.start()
    make_clone(plan, str(tmp_path / "out"), num_workers=2)
    is_over.set()
    killer.join()
    assert killed and digests(tmp_path / "out") == digests(tmp_path / "alone")


@pytest.fixture
def faulty(scans: Path, tmp_path: Path) -> tuple[Plan, Path]:
    """Returns a plan of real images, and one image file of shard 2. Once a test damages the file, the shard fails."""
    source = tmp_path / "source"
    for folder in sorted((scans / "test").iterdir())[:3]:
        (source / folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[:6]:
            shutil.copy(path, source / folder.name)
    recipe = RealImages.recipe("test", ClassOptions(source=str(source)), shard_size=3)
    from builders.engines.base import pin_model

    plan = Plan(pin_model(recipe), 6)
    return plan, sorted((source / plan.shard_samples(2)[0].wnid).iterdir())[plan.shard_samples(2)[0].index]


@pytest.mark.parametrize("workers", [1, 2])
def test_local__a_failed_shard_is_named_and_all_others_are_made(
    faulty: tuple[Plan, Path], tmp_path: Path, workers: int
) -> None:
    plan, image = faulty
    content = image.read_bytes()
    image.write_bytes(b"x" * len(content))
    out = tmp_path / "out"
    with pytest.raises(FailedShardsError) as failed:
        make_clone(plan, str(out), num_workers=workers)
    [failure] = failed.value.failures
    samples = plan.shard_samples(2)
    assert (failure.shard, failure.first_key, failure.last_key) == (2, samples[0].key, samples[-1].key)
    # There is no second attempt, because it would fail the same way.
    assert failure.num_attempts == 1 and f"{image}' cannot be read" in failure.cause
    status = read_status(str(out))
    assert status.num_shards_done == plan.num_shards - 1 and status.failures == [failure] and not status.runs
    assert any(samples[0].key in line and failure.cause in line for line in describe(status))
    image.write_bytes(content)
    assert make_clone(plan, str(out), num_workers=workers) is not None
    assert list(verify_clone(str(out), deep=True)) == [] and not (out / "_making").exists()


def test_local__if_every_shard_fails_all_are_named(faulty: tuple[Plan, Path], tmp_path: Path) -> None:
    plan, image = faulty
    for path in image.parent.parent.rglob("*.png"):
        path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(FailedShardsError) as failed:
        make_clone(plan, str(tmp_path / "out"))
    assert len(failed.value.failures) == plan.num_shards == 6 and not failed.value.has_given_up
    assert len(read_failures(open_storage(tmp_path / "out"))) == 6


def test_local__a_wrong_setting_ends_the_run(generated: Recipe, tmp_path: Path) -> None:
    plan = Plan(replace(generated, width=20), 6)
    with pytest.raises(UserError):
        make_clone(plan, str(tmp_path / "out"))
    assert read_failures(open_storage(tmp_path / "out")) == []


OPTIONS = ("--shard-size", "20", "--batch-size", "8", "--images-per-class", "8")


@pytest.fixture(scope="module")
def alone(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the clone of four shards that an undisturbed `make` with `OPTIONS` writes."""
    out = tmp_path_factory.mktemp("alone") / "clone"
    made = in_process.call(cli.main, "make", "real_images/test", out, "--source", scans / "test", *OPTIONS)
    assert made.returncode == 0, made.stderr
    return out


SLOW = """
import sys
from builders.engines import folder
from builders.generation import generate_shard
make = generate_shard.encode_sample
def slow(*arguments):
    import time
    time.sleep(0.05)
    return make(*arguments)
generate_shard.encode_sample = slow
from builders.cli.main import main
main()
"""


def test_local__an_unexpected_failure_is_retried_after_the_other_shards(
    real_plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def make(plan: Plan, shard: int, *rest: object) -> Iterator[tuple[int, int, int, int]]:
        tried.append(shard)
        if shard == 1 or (shard == 0 and tried.count(shard) < 2):
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nand more lines")
        yield from generate_shard_tar(plan, shard, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("builders.coordination.attempt.generate_shard_tar", make)
    with pytest.raises(FailedShardsError) as failed:
        make_clone(real_plan, str(tmp_path))
    [failure] = failed.value.failures
    assert sorted(tried) == [0, 0, 1, 1, 1, 2, 3] and failure.num_attempts == MAX_ATTEMPTS
    assert failure.cause == "RuntimeError: CUDA error: an illegal memory access was encountered"
    assert "Traceback" in failure.details and str(failure).endswith(f"failed 3 times: {failure.cause}")


def test_local__a_users_script_needs_no_main_guard(scans: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "print('begun', flush=True)\n"
        "from builders.classes.class_options import ClassOptions\n"
        "from builders.make_clone import make_clone\n"
        "from builders.planning.plan import Plan\n"
        "from builders.real_images import RealImages\n"
        f"recipe = RealImages.recipe('test', ClassOptions(source={str(scans / 'test')!r}), shard_size=20)\n"
        f"print(make_clone(Plan(recipe, 4), {str(tmp_path / 'out')!r}, num_workers=2).num_samples, __file__)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.stdout == f"begun\n31 {script}\n", done.stderr


@dataclass(frozen=True)
class BreaksProcess(Plan):
    """A plan that breaks the first process that makes one of its shards: every attempt of that process fails."""

    broken: str = ""
    """File with the id of that process."""

    def shard_samples(self, shard: int) -> list[Sample]:
        with contextlib.suppress(FileExistsError):
            Path(self.broken).touch(exist_ok=False)
            Path(self.broken).write_text(str(os.getpid()))
        if Path(self.broken).read_text() == str(os.getpid()):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return super().shard_samples(shard)


def test_local__a_worker_is_replaced_after_an_unexpected_failure(real_plan: Plan, tmp_path: Path) -> None:
    plan, out = BreaksProcess(real_plan.recipe, real_plan.num_rounds, str(tmp_path / "broken")), tmp_path / "out"
    with Heartbeat(open_storage(out)) as heartbeat:
        job = Job(task=Task(plan=plan, out=str(out)), execution=Execution(), heartbeat=heartbeat)
        pids, causes = list[int](), list[str]()
        with local._Processes(job, 1, []) as workers:
            for shard in (0, 0, 1):
                workers.start("0", shard, Execution())
                ended: list[Event] = []
                while not any(isinstance(event, Ended) for event in ended):
                    workers.poll(1.0, ended.append)
                pids.append(workers.running["0"].pid)
                last = ended[-1]
                assert isinstance(last, Ended) and last.shard == shard
                if last.problem:
                    causes.append(last.problem.cause)
                    workers.replace("0")
    assert causes == ["RuntimeError: CUDA error: an illegal memory access was encountered"]
    assert pids[0] != pids[1] == pids[2]


@dataclass(frozen=True)
class BreaksGpu(Plan):
    """A plan whose shards fail in every process that sees the GPU "1"."""

    def shard_samples(self, shard: int) -> list[Sample]:
        if os.environ.get("CUDA_VISIBLE_DEVICES") == "1":
            raise RuntimeError("CUDA error: uncorrectable ECC error encountered")
        return super().shard_samples(shard)


@pytest.mark.parametrize(("gpus", "plan_of"), [(["0"], BreaksProcess), (["0", "1"], BreaksGpu)])
def test_local__a_broken_process_is_replaced_and_a_broken_gpu_retired(
    real_plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: list[str], plan_of: type[Plan]
) -> None:
    make_clone(Plan(real_plan.recipe, 24), str(tmp_path / "alone"))
    monkeypatch.setattr(local, "_gpus", lambda plan: gpus)
    more = {"broken": str(tmp_path / "broken")} if plan_of is BreaksProcess else {}
    make_clone(plan_of(real_plan.recipe, 24, **more), str(tmp_path / "out"))
    assert digests(tmp_path / "out") == digests(tmp_path / "alone")
    assert not more or (tmp_path / "broken").read_text() != str(os.getpid())


def test_local__a_run_whose_attempts_all_fail_ends_and_names_the_cause(
    generated: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulates a process that a CUDA error has broken."""
    plan, made, tried = Plan(generated, 24), list[int](), list[int]()

    def make(plan: Plan, shard: int, *rest: object) -> Iterator[tuple[int, int, int, int]]:
        tried.append(shard)
        if len(made) >= 2:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        yield from generate_shard_tar(plan, shard, *rest)  # type: ignore[arg-type]
        made.append(shard)

    monkeypatch.setattr("builders.coordination.attempt.generate_shard_tar", make)
    assert plan.num_shards > 5
    with pytest.raises(FailedShardsError, match="worker 0 is retired: RuntimeError: CUDA error") as failed:
        make_clone(plan, str(tmp_path))
    assert failed.value.has_given_up and len(made) == 2 and len(tried) == 2 + MAX_FAILED_IN_A_ROW


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.long), signal.SIGUSR1])
def test_local__a_signal_drops_or_finishes_the_shard_in_progress(
    scans: Path, alone: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    make = [sys.executable, "-c", SLOW, "make", "real_images/test", str(out), "--source", str(scans / "test"), *OPTIONS]
    process = subprocess.Popen(make, stderr=subprocess.PIPE, text=True)
    while not list(out.rglob("*.parquet")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(number)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 75 and "run the command again to continue" in text, text
    left = [path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()]
    assert not [name for name in left if (name.startswith(RUNS) and name != TARGET) or name.endswith(".tmp")]
    assert 1 <= sum(name.endswith(".parquet") for name in left) < 4
    subprocess.run(make, check=True, stderr=subprocess.PIPE)
    assert digests(out) == digests(alone)


def test_local__three_runs_at_once_end_in_one_clone(scans: Path, alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make = [sys.executable, "-c", SLOW, "make", "real_images/test", str(out), "--source", str(scans / "test"), *OPTIONS]
    runs = [subprocess.Popen(make, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for run in runs:
        text, _ = run.communicate(timeout=120)
        assert run.returncode == 0 and "digest" in text
    assert digests(out) == digests(alone)


def test_local__there_is_one_worker_per_visible_gpu(monkeypatch: pytest.MonkeyPatch, generated: Recipe) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert local.visible_gpus() == ["3", "5"]
    assert local.num_workers(0, Plan(generated, 6)) == 2 and local.num_workers(4, Plan(generated, 6)) == 4
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert local.visible_gpus() == [] and local.num_workers(0, Plan(generated, 6)) == 1


@dataclass(frozen=True)
class NotesGpu(Plan):
    """A plan that records which GPUs each worker process sees."""

    folder: str = ""

    def shard_samples(self, shard: int) -> list[Sample]:
        Path(self.folder, str(os.getpid())).write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
        return super().shard_samples(shard)


def test_local__each_worker_sees_only_its_own_gpu(
    real_plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "seen").mkdir()
    monkeypatch.setattr(local, "_gpus", lambda plan: ["3", "5"])
    make_clone(NotesGpu(real_plan.recipe, 24, str(tmp_path / "seen")), str(tmp_path / "out"))
    assert sorted(path.read_text() for path in (tmp_path / "seen").iterdir()) == ["3", "5"]


def test_local__workers_end_with_the_process_that_started_them(real_plan: Plan, tmp_path: Path) -> None:
    script = (
        "import os, sys, time\nfrom builders.runners.local import _Processes\n"
        "workers = _Processes(None, 1, [])\nprint(workers._spawn('0').pid, flush=True)\nos.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    pid = int(done.stdout)
    for _ in range(400):
        if not Path(f"/proc/{pid}").exists():
            break
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


def test_local__a_requested_stop_raises_stopped_error(real_plan: Plan, tmp_path: Path) -> None:
    stop = Stop()

    def request_stop(num_images: int) -> None:
        stop.is_requested = True

    with pytest.raises(StoppedError, match="what is finished is kept"):
        make_clone(real_plan, str(tmp_path), on_images=request_stop, stop=stop)
    assert read_status(str(tmp_path)).num_shards_done == 1 and not read_status(str(tmp_path)).runs
