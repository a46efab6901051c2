"""The interface of checks: a check is a module whose `load` returns a function that scores images.

    TAKES_MODEL = False
    def load(model, revision):
        return lambda images, samples: [image.mean() for image in images]

A check is used by the name of its file, from this folder, from another package's entry points in the group
"fakeit.checks", or by the file's path (`--check FILE.py:0.5`).

Invariant: a score depends on the image, its sample and the size of the batch alone, so that it is the same when a shard
is made again.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from builders.errors import OutOfMemoryError, ReadableError, UserError, first_line, is_out_of_memory
from builders.networks.revision import directory_digest, file_digest, hub_commit
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
        found, path = (check, paths[text]) if text in paths else _pin(check)
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
    takes_model = _module(check.kind, "").TAKES_MODEL
    if bool(check.model) != takes_model:
        way_out = f"give {check.kind}=MODEL:LEAST" if takes_model else f"give {check.kind}:LEAST"
        raise UserError(
            f"--check {check} {'lacks its model' if takes_model else 'has a model, but takes none'}; {way_out}"
        )
    if not check.model:
        return check, ""
    folder = Path(check.model)
    if not folder.is_dir():
        return replace(check, revision=hub_commit(check.model, check.revision, "--check")), ""
    if not list(folder.glob("*.safetensors")):
        raise UserError(
            f"'{folder}' has no weights in safetensors; give --check {check.kind}=MODEL a model that has them"
        )
    digest = directory_digest(check.model)
    if check.revision not in ("", digest):
        raise UserError(f"the model in '{check.model}' is {digest}, but {check.revision} was given; give that model")
    path = os.path.abspath(check.model)
    return replace(check, model=Path(path).name, revision=digest), path


def _pin_file(check: Check) -> tuple[Check, str]:
    path = Path(os.path.abspath(check.kind))
    if not path.is_file():
        reason = "was read from a file on another machine" if check.revision else "does not exist"
        raise UserError(f"check '{check.kind}' {reason}; give --check the path of a file")
    digest = file_digest(path)
    if check.model:
        raise UserError(
            f"--check {check} has a model, but a file of your own loads its model itself; give {check.kind}:LEAST"
        )
    if check.revision not in ("", digest):
        raise UserError(f"check '{path}' is {digest}, but {check.revision} was given; give that file")
    _module(str(path), digest)
    return replace(check, kind=path.name, revision=digest), str(path)


@lru_cache(maxsize=8)
def _load(text: str, path: str) -> LoadedCheck:
    check = parse_check(text)
    if check.kind.endswith(".py"):
        if file_digest(Path(path)) != check.revision:
            raise UserError(f"check '{path}' has changed since it was given; start again")
        module, model, revision = _module(path, check.revision), "", ""
    else:
        module, model, revision = _module(check.kind, ""), path or check.model, "" if path else check.revision
    try:
        return LoadedCheck(check.name, check.least, module.load(model, revision))
    except ReadableError:
        raise
    except Exception as error:  # a plug-in may raise anything
        raise _memory_error(check.name, error) or UserError(
            f"check '{text}' cannot be loaded ({first_line(error)}); repair it"
        ) from None


@lru_cache(maxsize=16)
def _module(kind: str, digest: str) -> CheckModule:
    """Returns a plug-in by its name, or a file's by its path; `digest` tells versions of one file apart."""
    if not kind.endswith(".py"):
        return cast(CheckModule, find_plugin("checks", kind))
    module = ModuleType(Path(kind).stem)
    try:
        # Not imported: bytecode beside the file would hide an edit within the same second.
        exec(compile(Path(kind).read_bytes(), kind, "exec"), vars(module))
    except Exception as error:  # the user's file may raise anything
        raise UserError(
            f"check '{kind}' cannot be read ({type(error).__name__}: {first_line(error)}); repair it"
        ) from None
    if not hasattr(module, "load"):
        raise UserError(f"check '{kind}' has no function load(model, revision); give it one (builders/checks/base.py)")
    return cast(CheckModule, module)


def scores(check: LoadedCheck, images: Sequence[NDArray[np.uint8]], samples: Sequence[Sample]) -> list[float]:
    """Returns the score of each image. One that is not finite counts as 1 below the least, so that it is rejected.

    Raises:
        OutOfMemoryError: the check's model does not fit beside the generator.
        UserError: the check fails, or does not give a number for each image.
    """
    try:
        found = [float(score) for score in check.score(images, samples)]
    except ReadableError:
        raise
    except Exception as error:  # a plug-in may raise anything
        raise _memory_error(check.name, error) or UserError(
            f"check '{check.name}' fails ({type(error).__name__}: {first_line(error)}); repair it"
        ) from None
    if len(found) != len(images):
        raise UserError(f"check '{check.name}' gives {found[:3]}… for {len(images)} images; it must give one each")
    return [score if math.isfinite(score) else check.least - 1 for score in found]


def _memory_error(name: str, error: Exception) -> OutOfMemoryError | None:
    if not is_out_of_memory(error):
        return None
    return OutOfMemoryError(f"out of memory in check '{name}'; try a smaller --batch-size, auto, or a smaller model")
