"""Makes the clones of a study, trains on them and evaluates, by calling the commands that do so; finished ones are kept."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import filelock

from builders.errors import UserError
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
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        if self.jobs < 1 or self.trials < 1 or not self.options.seeds:
            raise UserError(f"--jobs {self.jobs} --trials {self.trials} --seeds need at least one each")
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


def run_all(runs: Sequence[Run], job: Job) -> None:
    """Makes, trains and evaluates everything that is not finished yet.

    Raises:
        UserError: a command failed.
    """
    with ThreadPoolExecutor(job.setting.jobs) as pool:
        for future in [pool.submit(_run_one, run, job) for run in runs if not job.is_finished(run)]:
            future.result()


def _run_one(run: Run, job: Job) -> None:
    setting = job.setting
    out = _train(run, setting)
    with _locked(out):
        if of_run := [name for name in job.evaluations if name != "data"]:
            root = ["--root", setting.root] if setting.root else []
            suite = ["suite", str(out), "--suite", job.suite, "--trials", str(setting.trials), *root]
            _call("fakeit_eval", [*suite, "--only", *of_run], out, setting)
    if "data" in job.evaluations:
        _measure(run.data, job)
    with _locked(out):  # another study may finish something in the same folder
        done = _finished(run, setting) | job.wanted
        (out / FINISHED).write_text(" ".join(sorted(done)), encoding="utf-8")


def _train(run: Run, setting: Setting) -> Path:
    """Returns the folder of a training run, and trains if it is not finished."""
    data, out = _make(run.data, setting), run_folder(run, setting)
    with _locked(out):
        if not (out / "backbone.json").is_file():
            scale = ["--scale", f"{run.scale:g}"] if run.scale else []
            settings = ["--set", *run.settings] if run.settings else []
            arguments = [run.config, "--data", data, "--out", str(out), *scale, *settings, "--resume"]
            _call("fakeit_train", arguments, out, setting)
    return out


def _measure(clone: Clone, job: Job) -> None:
    """Measures what a clone is worth against all real training images, with the base's networks.

    Where the base names none, they are a network that is trained on the real images first.
    """
    setting, base = job.setting, job.base
    real = base.all_real(setting.options)
    trained = "" if base.backbone and base.classifier else str(_train(base.runs(real, setting.options)[0], setting))
    networks = ["--backbone", base.backbone or trained, "--classifier", base.classifier or trained]
    out = job.measures_folder(clone)
    with _locked(out):
        command = ["data", _make(clone, setting), "--real", _make(real, setting), *networks, "--out", str(out)]
        _call("fakeit_eval", command, out, setting)


def _make(clone: Clone, setting: Setting) -> str:
    """Returns the location of a clone, and makes the clone if it does not exist."""
    if clone.path:
        return clone.path
    out = setting.out / "clones" / clone.key
    with _locked(out):
        if not (out / "clone.json").is_file():
            options = list(clone.options)
            if clone.recipe.startswith("real_images") and "--source" not in options:
                options += ["--source", _digits_scans(setting)]
            _call("builders", ["make", clone.recipe, str(out), *options], out, setting)
    return str(out)


def _digits_scans(setting: Setting) -> str:
    """Returns class folders of the real training digits, and writes them first if they do not exist."""
    folder = setting.out / "scans"
    with _locked(folder):
        if not (folder / FINISHED).exists():
            _call(DIGITS_SCANS, [str(folder)], folder, setting)
            (folder / FINISHED).touch()
    return str(folder / "train")


def _call(module: str, arguments: list[str], out: Path, setting: Setting) -> None:
    """Runs one of our commands; its output is appended to a log beside its folder.

    Raises:
        UserError: the command fails.
    """
    log = out.with_name(f"{out.name}.log")
    threads = max(1, (os.cpu_count() or 1) // setting.jobs)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    command = [sys.executable, "-m", module, *arguments]
    with log.open("ab") as file:
        ended = subprocess.run(command, stdout=file, stderr=file, env=environment, check=False)
    if ended.returncode:
        last = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"])[-1]
        raise UserError(
            f"'{module} {' '.join(arguments[:3])} …' ended with status {ended.returncode} ({last}); see its log '{log}', "
            "and run the study again to continue"
        )


def _locked(folder: Path) -> filelock.FileLock:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(folder.with_name(f"{folder.name}.lock"))


def run_folder(run: Run, setting: Setting) -> Path:
    """Folder of a training run and of its results."""
    return setting.out / "runs" / run.key


def _finished(run: Run, setting: Setting) -> set[str]:
    path = run_folder(run, setting) / FINISHED
    return set(path.read_text(encoding="utf-8").split()) if path.is_file() else set()
