"""Runs a study: calls the commands that make, train and evaluate for every point, then writes and draws the results.

Every clone and every run has a folder whose name is a digest of what it depends on. Finished ones are used again, by
other studies too. A study that was stopped continues when it is run again, because each command does. Several machines
that share the output folder can each run a share of it.

    OUT/clones/…  OUT/runs/…  OUT/measures/…  OUT/<study>-<base>.csv .json .md .png .svg
"""

import importlib
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builders.errors import UserError, suggest
from builders.plugins import module_names
from fakeit_eval.figures.page import write_study
from fakeit_eval.figures.table import Row, Table, rows_of_results
from fakeit_eval.reporting.results import find_results, read_result
from fakeit_eval.studies.base import Base, Point, Run
from fakeit_eval.study_runs import Job, Setting, print_all, run_all, run_folder
from fakeit_eval.tasks.base import read_tasks


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


def run_study(
    name: str, base_name: str, values: Sequence[str], setting: Setting, *, is_printed: bool = False
) -> Path | None:
    """Runs this machine's share of a study, and writes the study's results once all shares are finished.

    Args:
        is_printed: Whether to print the share's commands instead.

    Returns:
        The study's page, or None while shares are unfinished.

    Raises:
        UserError: the study, its base or a value is unknown, or a command failed.
    """
    module, base = find_study(name), find_base(base_name)
    points = _points(module, base, values, setting)
    runs = list(dict.fromkeys(point.run for point in points))
    _check_sources(runs, base)
    mine, num_shares = setting.share
    suite = getattr(module, "suite", lambda base: base.suite)(base)
    job = Job(base, suite, module.EVALUATIONS, setting)
    if is_printed:
        print_all(runs[mine - 1 :: num_shares], job)
        return None
    run_all(runs[mine - 1 :: num_shares], job)
    left = [run for run in runs if not job.is_finished(run)]
    if left:
        return None
    return write_study(name, module, base, gather(points, job), setting.out)


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


def gather(points: Sequence[Point], job: Job) -> Table:
    """Collects the results of finished runs in one table.

    Runs are shared between studies; results of evaluations that this study does not run are left out.
    """
    families = {name: task.family for name, task in read_tasks().items()}
    trials = job.setting.trials
    rows: list[Row] = []
    for point in points:
        folders = [run_folder(point.run, job.setting)]
        folders += [job.measures_folder(point.run.data)] if "data" in job.evaluations else []
        results = [read_result(path) for path in find_results(folders)]
        rows += rows_of_results(
            [
                result
                for result in results
                if result["task"] in job.evaluations and result["settings"].get("trials", trials) == trials
            ],
            series=point.series,
            x=point.x,
            seed=point.run.seed,
            family_of=lambda name: families.get(name, "other"),
        )
    return Table(rows)
