"""The interface of checks: a check is a module whose `load` returns a function that scores images.

    TAKES_MODEL = False
    def load(model, revision):
        return lambda images, samples: [image.mean() for image in images]

A check is used by the name of its file, from this folder, from another package's entry points in the group
"fakeit.checks", or by the file's path (`--check FILE.py:0.5`).

Invariant: a score depends on the image, its sample and the size of the batch alone, so that it is the same when a shard
is made again.
"""

import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from builders.errors import ReadableError, UserError, first_line
from builders.networks.revision import COMMIT, directory_digest, file_digest, hub_commit
from builders.plugins import find_plugin
from builders.recipes.checks import Check, parse_check
from builders.recipes.recipe import Recipe
from builders.recipes.sample import Sample

Score = Callable[[Sequence[NDArray[np.uint8]], Sequence[Sample]], Sequence[float] | NDArray[np.floating[Any]]]
"""Maps n RGB images (height, width, 3) and their samples to n scores, of which higher ones are better."""


class CheckModule(Protocol):
    TAKES_MODEL: bool
    """Whether the check scores by a model, which the user names (NAME=MODEL:LEAST)."""

    def load(self, model: str, revision: str) -> Score:
        """Returns the function that scores; called once per process.

        Args:
            model: Directory or Hub id of the model; "" without one.
            revision: Commit of a model on the Hub; "" for a directory.

        Raises:
            UserError: the model cannot be loaded.
        """


@dataclass(frozen=True)
class LoadedCheck:
    name: str
    least: float
    score: Score


def pin_checks(recipe: Recipe) -> Recipe:
    """Returns the recipe whose checks name the bytes of their models and files.

    Raises:
        UserError: there is no such check, file or model, or it is not the one that the recipe was made with.
    """
    paths, pinned = dict(recipe.paths), []
    for text in recipe.checks:
        check = parse_check(text)
        is_pinned = text in paths or (check.model and COMMIT.fullmatch(check.revision))
        found, path = (check, paths.get(text, "")) if is_pinned else _pin(check)
        pinned.append(str(found))
        if path:
            paths[str(found)] = path
    return replace(recipe, checks=tuple(pinned), paths=tuple(paths.items()))


def loaded_checks(recipe: Recipe) -> list[LoadedCheck]:
    """Returns the checks of a pinned recipe, in their order. They are loaded once per process.

    Raises:
        UserError: a check or its model cannot be loaded.
    """
    paths = dict(recipe.paths)
    return [_load(text, paths.get(text, "")) for text in recipe.checks]


def _pin(check: Check) -> tuple[Check, str]:
    """Returns a check with its revision, and the path of its file or of its model's directory; "" for one of the Hub."""
    if check.kind.endswith(".py"):
        return _pin_file(check)
    takes_model = _module(check.kind).TAKES_MODEL
    if bool(check.model) != takes_model:
        way_out = f"give {check.kind}=MODEL:LEAST" if takes_model else f"give {check.kind}:LEAST"
        raise UserError(
            f"--check {check} {'lacks its model' if takes_model else 'has a model, but takes none'}; {way_out}"
        )
    if not check.model:
        return check, ""
    if not Path(check.model).is_dir():
        return replace(check, revision=hub_commit(check.model, check.revision, "--check")), ""
    digest = directory_digest(check.model)
    if check.revision not in ("", digest):
        raise UserError(f"the model in '{check.model}' is {digest}, but {check.revision} was given; give that model")
    name = Path(check.model).resolve().name
    return replace(check, model=name, revision=digest), str(Path(check.model).resolve())


def _pin_file(check: Check) -> tuple[Check, str]:
    path = Path(check.kind)
    if not path.is_file():
        reason = "was read from a file on another machine" if check.revision else "does not exist"
        raise UserError(f"check '{check.kind}' {reason}; give --check the path of a file")
    digest = file_digest(path)
    if check.revision not in ("", digest):
        raise UserError(f"check '{path}' is {digest}, but {check.revision} was given; give that file")
    _module(str(path))
    return replace(check, kind=path.name, revision=digest), str(path.resolve())


@lru_cache(maxsize=8)
def _load(text: str, path: str) -> LoadedCheck:
    check = parse_check(text)
    if check.kind.endswith(".py"):
        module, model, revision = _module(path), check.model, ""
    else:
        module, model, revision = _module(check.kind), path or check.model, "" if path else check.revision
    try:
        return LoadedCheck(check.name, check.least, module.load(model, revision))
    except ReadableError:
        raise
    except Exception as error:  # a plug-in may raise anything
        raise UserError(f"check '{text}' cannot be loaded ({first_line(error)}); repair it") from None


@lru_cache(maxsize=16)
def _module(kind: str) -> CheckModule:
    if not kind.endswith(".py"):
        return cast(CheckModule, find_plugin("checks", kind))
    spec = importlib.util.spec_from_file_location(Path(kind).stem, kind)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's file may raise anything
        raise UserError(
            f"check '{kind}' cannot be read ({type(error).__name__}: {first_line(error)}); repair it"
        ) from None
    if not hasattr(module, "load"):
        raise UserError(f"check '{kind}' has no function load(model, revision); give it one (builders/checks/base.py)")
    return cast(CheckModule, module)


def scores(check: LoadedCheck, images: Sequence[NDArray[np.uint8]], samples: Sequence[Sample]) -> list[float]:
    """Returns the score of each image.

    Raises:
        UserError: the check fails, or does not give a finite number for each image.
    """
    try:
        found = [float(score) for score in check.score(images, samples)]
    except ReadableError:
        raise
    except Exception as error:  # a plug-in may raise anything
        raise UserError(
            f"check '{check.name}' fails ({type(error).__name__}: {first_line(error)}); repair it"
        ) from None
    if len(found) != len(images) or not all(map(math.isfinite, found)):
        raise UserError(
            f"check '{check.name}' gives {found[:3]}… for {len(images)} images; it must give a finite number each"
        )
    return found
