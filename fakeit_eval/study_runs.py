"""Makes the clones of a study, trains on them and evaluates, by calling the commands that do so; finished ones are kept."""

import hashlib
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import filelock

from builders.errors import UserError
from fakeit_eval.gpu_queue import VISIBLE, GpuQueue, list_gpus
from fakeit_eval.studies.base import Base, Clone, Options, Run

FINISHED = "finished"
"""File in a run's folder that lists its finished evaluations."""
DIGITS_SCANS = "builders.embedded.digits"
"""Module that writes the real digits as class folders."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where and how a study runs."""

    out: Path
    root: str = ""
    """Directory of the published datasets."""
    share: tuple[int, int] = (1, 1)
    """This machine's share and the number of shares; shares count from 1."""
    jobs: int = 1
    """Runs at the same time."""
    trials: int = 30
    """Trials of each probe's search."""
    gpus_per_run: int = 1
    """GPUs that each run trains on; with several, under torchrun."""
    workers: int | None = None
    """Processes that load images, per GPU; None for the default of each command."""
    batch_size: int | None = None
    """Images per forward of the evaluations; None for their default."""
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        if self.jobs < 1 or self.trials < 1 or not self.options.seeds:
            raise UserError(f"--jobs {self.jobs} --trials {self.trials} --seeds need at least one each")
        if self.gpus_per_run < 1:
            raise UserError(f"--gpus-per-run is {self.gpus_per_run}, but must be at least 1")
        if self.options.fixed not in ("", "iterations", "epochs"):
            raise UserError(f"unknown --fixed '{self.options.fixed}'; choose from iterations, epochs")


@dataclass(frozen=True)
class Job:
    """What a study does with each of its runs."""

    base: Base
    suite: str
    evaluations: Sequence[str]
    setting: Setting

    @property
    def wanted(self) -> set[str]:
        """Names under which the evaluations are recorded once they are finished.

        A probe's name holds the number of trials, and the suite if it is not the base's: other ones are evaluated anew.
        The name of measures holds what clones are measured with.
        """
        of_suite = "" if self.suite == self.base.suite else f"-{self.suite}"
        names = {"probe": f"probe-{self.setting.trials}{of_suite}", "data": f"data-{self.measured_with}"}
        return {names.get(name, name) for name in self.evaluations}

    @property
    def measured_with(self) -> str:
        """Digest of the real images and of the networks that clones are measured with."""
        base, real = self.base, self.base.all_real(self.setting.options)
        trained = base.runs(real, self.setting.options)[0].key
        names = [real.key, base.backbone or trained, base.classifier or trained]
        return hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]

    def measures_folder(self, clone: Clone) -> Path:
        """Folder of what was measured of a clone."""
        return self.setting.out / "measures" / f"{clone.key}-{self.measured_with}"

    def is_finished(self, run: Run) -> bool:
        return self.wanted <= _finished(run, self.setting)

    @property
    def loading(self) -> list[str]:
        """Options of the evaluations that say how images are loaded."""
        given = (("--workers", self.setting.workers), ("--batch-size", self.setting.batch_size))
        return [word for name, value in given if value is not None for word in (name, str(value))]


class Launcher:
    """Runs our commands on the GPUs of this node, and appends their output to a log beside the command's folder."""

    def __init__(self, setting: Setting, gpus: GpuQueue) -> None:
        self.setting, self.gpus = setting, gpus

    def __call__(self, module: str, arguments: list[str], out: Path) -> None:
        """Runs a command on its GPUs; one that fails on a broken GPU is run again on others.

        Raises:
            UserError: the command fails.
        """
        count = self.setting.gpus_per_run if module == "fakeit_train" else 1
        while True:
            with self.gpus.take(count) as gpus:
                status = self._run(module, arguments, out, gpus)
                # Status 2 is a mistake of the user and others end by a signal, which no other GPU mends.
                if status in (0, 2, 130) or status < 0 or not self.gpus.drop_broken(gpus):
                    break
        if status:
            log = _log(out)
            last = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"])[-1]
            raise UserError(
                f"'{module} {' '.join(arguments[:3])} …' ended with status {status} ({last}); see its log '{log}', "
                "and run the study again to continue"
            )

    def _run(self, module: str, arguments: list[str], out: Path, gpus: list[str]) -> int:
        num_processes = self.setting.gpus_per_run if module == "fakeit_train" else 1
        threads = max(1, (os.cpu_count() or 1) // (self.setting.jobs * num_processes))
        visible = {VISIBLE: ",".join(gpus)} if gpus else {}
        environment = {"OMP_NUM_THREADS": str(threads), **os.environ, **visible}
        launch = [sys.executable, "-m"]
        if num_processes > 1:
            launch += ["torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}", "-m"]
        with _log(out).open("ab") as file:
            command = [*launch, module, *arguments]
            held = self.gpus.held(gpus)
            return subprocess.run(
                command, stdout=file, stderr=file, env=environment, check=False, pass_fds=held
            ).returncode


class Printer:
    """Prints the commands instead, each once, for a cluster's own scheduler."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.printed = setting, set[str]()

    def __call__(self, module: str, arguments: list[str], out: Path) -> None:
        program = {"builders": ["fakeit-build"], "fakeit_eval": ["fakeit-eval"], "fakeit_train": ["fakeit-train"]}
        launch = program.get(module, ["python", "-m", module])
        if module == "fakeit_train" and self.setting.gpus_per_run > 1:
            launch = ["torchrun", "--standalone", f"--nproc-per-node={self.setting.gpus_per_run}", "-m", module]
        line = shlex.join([*launch, *arguments])
        if line not in self.printed:
            self.printed.add(line)
            sys.stdout.write(line + "\n")


Call = Callable[[str, list[str], Path], None]
"""Runs a module with arguments whose output goes to a folder."""


def run_all(runs: Sequence[Run], job: Job) -> None:
    """Makes, trains and evaluates everything that is not finished yet.

    Raises:
        UserError: a command failed, or there are too few GPUs.
    """
    gpus = GpuQueue(list_gpus())
    gpus.check_count(job.setting.gpus_per_run)
    launcher = Launcher(job.setting, gpus)
    with ThreadPoolExecutor(job.setting.jobs) as pool:
        futures = [pool.submit(_run_one, run, job, launcher) for run in runs if not job.is_finished(run)]
        try:
            for future in futures:
                future.result()
        except BaseException:
            # Runs that have not begun do not begin after an interrupt or a failure.
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def print_all(runs: Sequence[Run], job: Job) -> None:
    """Prints the commands of everything that is not finished yet; those of a run must run one after the other."""
    printer = Printer(job.setting)
    for run in runs:
        if not job.is_finished(run):
            _evaluate(_train(run, job.setting, printer), run, job, printer)


def _run_one(run: Run, job: Job, call: Call) -> None:
    out = _train(run, job.setting, call)
    _evaluate(out, run, job, call)
    with _locked(out):  # another study may finish something in the same folder
        done = _finished(run, job.setting) | job.wanted
        (out / FINISHED).write_text(" ".join(sorted(done)), encoding="utf-8")


def _evaluate(out: Path, run: Run, job: Job, call: Call) -> None:
    setting = job.setting
    with _locked(out):
        if of_run := [name for name in job.evaluations if name != "data"]:
            root = ["--root", setting.root] if setting.root else []
            suite = ["suite", str(out), "--suite", job.suite, "--trials", str(setting.trials), *root, *job.loading]
            call("fakeit_eval", [*suite, "--only", *of_run], out)
    if "data" in job.evaluations:
        _measure(run.data, job, call)


def _train(run: Run, setting: Setting, call: Call) -> Path:
    """Returns the folder of a training run, and trains if it is not finished."""
    data, out = _make(run.data, setting, call), run_folder(run, setting)
    with _locked(out):
        if not (out / "backbone.json").is_file():
            scale = ["--scale", f"{run.scale:g}"] if run.scale else []
            workers = [] if setting.workers is None else [f"data.num_workers={setting.workers}"]
            settings = ["--set", *run.settings, *workers] if run.settings or workers else []
            arguments = [run.config, "--data", data, "--out", str(out), *scale, *settings, "--resume"]
            call("fakeit_train", arguments, out)
    return out


def _measure(clone: Clone, job: Job, call: Call) -> None:
    """Measures what a clone is worth against all real training images, with the base's networks.

    Where the base names none, they are a network that is trained on the real images first.
    """
    setting, base = job.setting, job.base
    real = base.all_real(setting.options)
    trained = (
        "" if base.backbone and base.classifier else str(_train(base.runs(real, setting.options)[0], setting, call))
    )
    networks = ["--backbone", base.backbone or trained, "--classifier", base.classifier or trained]
    out = job.measures_folder(clone)
    with _locked(out):
        data, compared = _make(clone, setting, call), _make(real, setting, call)
        call("fakeit_eval", ["data", data, "--real", compared, *networks, "--out", str(out), *job.loading], out)


def _make(clone: Clone, setting: Setting, call: Call) -> str:
    """Returns the location of a clone, and makes the clone if it does not exist."""
    if clone.path:
        return clone.path
    out = setting.out / "clones" / clone.key
    with _locked(out):
        if not (out / "clone.json").is_file():
            options = list(clone.options)
            if clone.recipe.startswith("real_images") and "--source" not in options:
                options += ["--source", _digits_scans(setting, call)]
            call("builders", ["make", clone.recipe, str(out), *options], out)
    return str(out)


def _digits_scans(setting: Setting, call: Call) -> str:
    """Returns class folders of the real training digits, and writes them first if they do not exist."""
    folder = setting.out / "scans"
    with _locked(folder):
        if not (folder / FINISHED).exists():
            call(DIGITS_SCANS, [str(folder)], folder)
            if folder.is_dir():  # not if commands are printed
                (folder / FINISHED).touch()
    return str(folder / "train")


def _log(out: Path) -> Path:
    return out.with_name(f"{out.name}.log")


def _locked(folder: Path) -> filelock.FileLock:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(folder.with_name(f"{folder.name}.lock"))


def run_folder(run: Run, setting: Setting) -> Path:
    """Folder of a training run and of its results."""
    return setting.out / "runs" / run.key


def _finished(run: Run, setting: Setting) -> set[str]:
    path = run_folder(run, setting) / FINISHED
    return set(path.read_text(encoding="utf-8").split()) if path.is_file() else set()
