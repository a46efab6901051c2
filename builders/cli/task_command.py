"""The command line of one task of a batch system's array, which makes a part of a clone."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

from builders.cli.options import REPEATED, RecipeOptions
from builders.engines.base import engine
from builders.planning.plan import Plan
from builders.recipes.adapters import parse_adapter
from builders.recipes.checks import parse_check
from builders.recipes.recipe import Recipe

PROGRAM = "fakeit-build"


def task_command(planned: Plan, recipe: str, out: str, options: RecipeOptions, run: Any) -> list[str]:
    """The command line of one task of the array; it means the same in every directory, and names the model's revision."""
    if engine(planned.recipe.engine).IS_SYNTHETIC:
        options = dataclasses.replace(options, revision=options.revision or planned.recipe.revision)  # type: ignore[call-arg]
    options = dataclasses.replace(options, **_pinned_options(planned.recipe, options))  # type: ignore[arg-type]
    program = [PROGRAM] if Path(sys.argv[0]).name == PROGRAM else [sys.executable, "-m", "builders"]
    words = [*program, "make", recipe, out, "--runner", "slurm"]
    given = {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}
    given |= {"workers": run.workers or None, "scratch": run.scratch, "patience": run.patience}
    given |= {"license": run.license, "description": run.description}
    for name, value in given.items():
        flag = f"--{REPEATED.get(name, name).replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        elif isinstance(value, tuple):
            # An option that may be repeated takes one value each time; the others take all at once.
            words += [word for text in value for word in (flag, text)] if name in REPEATED else [flag, *value]
        elif value not in (None, ""):
            words += [flag, str(value)]
    return words


def _pinned_options(recipe: Recipe, options: RecipeOptions) -> dict[str, Any]:
    """The options that name adapters and checks, with their revisions; and those of a preset one by one."""
    paths = dict(recipe.paths)
    found: dict[str, Any] = {}
    if options.adapters or options.preset:
        adapters = [(text, parse_adapter(text)) for text in recipe.adapters]
        found["adapters"] = tuple(str(dataclasses.replace(one, id=paths.get(text, one.id))) for text, one in adapters)
    if options.checks:
        found["checks"] = tuple(_with_path(text, paths.get(text, "")) for text in recipe.checks)
    if options.preset:
        names = ("scheduler", "num_inference_steps", "guidance_scale")
        found |= {"preset": None, **{name: getattr(recipe, name) for name in names}}
    return found


def _with_path(text: str, path: str) -> str:
    check = parse_check(text)
    if not path:
        return text
    return str(dataclasses.replace(check, model=path) if check.model else dataclasses.replace(check, kind=path))
