"""Runs a study: calls the commands that make, train and evaluate for every point, then writes and draws the results.

Every clone and every run has a folder whose name is a digest of what it depends on. Finished ones are used again, by
other studies too. A study that was stopped continues when it is run again, because each command does. Several machines
that share the output folder can each run a share of it.

    OUT/clones/…  OUT/runs/…  OUT/<study>-<base>.csv .json .md .png .svg
"""

import importlib
import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock

from builders.errors import UserError, suggest
from builders.plugins import module_names
from fakeit_eval.figures.page import write_study
from fakeit_eval.figures.table import Row, Table, rows_of_results
from fakeit_eval.reporting.results import find_results, read_result
from fakeit_eval.studies.base import Base, Clone, Options, Point, Run
from fakeit_eval.tasks.base import read_tasks

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


def parse_share(text: str) -> tuple[int, int]:
    """Reads a share such as "2/3" as (2, 3).

    Raises:
        UserError: the text is not i/n with 1 <= i <= n.
    """
    first, slash, last = text.partition("/")
    if not (slash and first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise UserError(f"--share {text} cannot be read; write i/n, such as 1/2 and 2/2")
    return int(first), int(last)


def study_names() -> list[str]:
    return module_names("fakeit_eval.studies")


def base_names() -> list[str]:
    return module_names("fakeit_eval.study_bases")


def run_study(name: str, base_name: str, values: Sequence[str], setting: Setting) -> Path | None:
    """Runs this machine's share of a study, and writes the study's results once all shares are finished.

    Returns:
        The study's page, or None while other shares are unfinished.

    Raises:
        UserError: the study, its base or a value is unknown, or a command failed.
    """
    module, base = find_study(name), find_base(base_name)
    points = _points(module, base, values, setting)
    runs = list(dict.fromkeys(point.run for point in points))
    _check_sources(runs, base)
    mine, num_shares = setting.share
    suite = getattr(module, "suite", lambda base: base.suite)(base)
    job = _Job(base, suite, module.EVALUATIONS, setting)
    _run_all(runs[mine - 1 :: num_shares], job)
    left = [run for run in runs if not job.is_finished(run)]
    if left:
        return None
    return write_study(name, module, base, gather(points, module.EVALUATIONS, setting), setting.out)


def find_study(name: str) -> Any:
    if name not in study_names():
        raise UserError(f"unknown study '{name}'; {suggest(name, study_names())}")
    return importlib.import_module(f"fakeit_eval.studies.{name}")


def find_base(name: str) -> Base:
    """Finds a base by its name, or in a .py file that defines BASE.

    Raises:
        UserError: the name is unknown, or the file cannot be run or has no BASE.
    """
    if name.endswith(".py") and Path(name).is_file():
        try:
            found = runpy.run_path(name).get("BASE")
        except Exception as error:  # a user's file may raise anything
            raise UserError(
                f"base '{name}' cannot be read ({type(error).__name__}: {error}); correct the file"
            ) from None
    elif name in base_names():
        found = importlib.import_module(f"fakeit_eval.study_bases.{name}").BASE
    else:
        raise UserError(f"unknown base '{name}'; {suggest(name, base_names())}, or a .py file with a BASE")
    if not isinstance(found, Base):
        raise UserError(f"base '{name}' has no BASE of type Base; see fakeit_eval/study_bases/digits.py")
    return found


def _points(module: Any, base: Base, values: Sequence[str], setting: Setting) -> list[Point]:
    given = [_number(value) for value in values] or module.default_values(base)
    kinds = {type(value) for value in module.default_values(base)}
    for value in given:
        if float in kinds and not isinstance(value, float):
            raise UserError(f"'{value}' is not a number; give --values such as {_listed(module.default_values(base))}")
        if kinds == {str} and value not in module.default_values(base):
            raise UserError(f"unknown value '{value}'; choose from {_listed(module.default_values(base))}")
    points: list[Point] = module.points(base, given, setting.options)
    return points


def _check_sources(runs: Sequence[Run], base: Base) -> None:
    """Checks that real training images are given where runs need them; those of the digits ship with the package.

    Raises:
        UserError: they are missing.
    """
    needed = [r.data for r in runs if r.data.recipe.startswith("real_images") and not r.data.path]
    if not base.builder.startswith("digits") and any("--source" not in clone.options for clone in needed):
        raise UserError(
            f"base '{base.name}' needs its real training images; give --real DIR of class folders or a clone's URL"
        )


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _listed(values: Sequence[float | str]) -> str:
    return " ".join(f"'{value}'" if isinstance(value, str) else f"{value:g}" for value in values)


@dataclass(frozen=True)
class _Job:
    """What a study does with each of its runs."""

    base: Base
    suite: str
    evaluations: Sequence[str]
    setting: Setting

    @property
    def wanted(self) -> set[str]:
        """Names under which the evaluations are recorded once they are finished.

        A probe's name holds the number of trials, and the suite if it is not the base's: other ones are evaluated anew.
        """
        of_suite = "" if self.suite == self.base.suite else f"-{self.suite}"
        trials = self.setting.trials
        return {f"probe-{trials}{of_suite}" if name == "probe" else name for name in self.evaluations}

    def is_finished(self, run: Run) -> bool:
        return self.wanted <= _finished(run, self.setting)


def _run_all(runs: Sequence[Run], job: _Job) -> None:
    with ThreadPoolExecutor(job.setting.jobs) as pool:
        for future in [pool.submit(_run_one, run, job) for run in runs if not job.is_finished(run)]:
            future.result()


def _run_one(run: Run, job: _Job) -> None:
    setting = job.setting
    data = _make(run.data, setting)
    out = _run_folder(run, setting)
    with _locked(out):
        scale = ["--scale", f"{run.scale:g}"] if run.scale else []
        settings = ["--set", *run.settings] if run.settings else []
        if not (out / "backbone.json").is_file():
            arguments = [run.config, "--data", data, "--out", str(out), *scale, *settings, "--resume"]
            _call("fakeit_train", arguments, out, setting)
        root = ["--root", setting.root] if setting.root else []
        suite = ["suite", str(out), "--suite", job.suite, "--trials", str(setting.trials), *root]
        _call("fakeit_eval", [*suite, "--only", *job.evaluations], out, setting)
        done = _finished(run, setting) | job.wanted
        (out / FINISHED).write_text(" ".join(sorted(done)), encoding="utf-8")


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


def _run_folder(run: Run, setting: Setting) -> Path:
    return setting.out / "runs" / run.key


def _finished(run: Run, setting: Setting) -> set[str]:
    path = _run_folder(run, setting) / FINISHED
    return set(path.read_text(encoding="utf-8").split()) if path.is_file() else set()


def gather(points: Sequence[Point], evaluations: Sequence[str], setting: Setting) -> Table:
    """Collects the results of finished runs in one table.

    Runs are shared between studies; results of evaluations that this study does not run are left out.
    """
    families = {name: task.family for name, task in read_tasks().items()}
    rows: list[Row] = []
    for point in points:
        results = [read_result(path) for path in find_results([_run_folder(point.run, setting)])]
        rows += rows_of_results(
            [
                result
                for result in results
                if result["task"] in evaluations and result["settings"].get("trials", setting.trials) == setting.trials
            ],
            series=point.series,
            x=point.x,
            seed=point.run.seed,
            family_of=lambda name: families.get(name, "other"),
        )
    return Table(rows)
