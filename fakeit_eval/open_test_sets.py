"""Opens the test sets of --data: a test set's name, NAME=PATH, a suite of test sets, or any images."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from builders.errors import UserError
from builders.image_sets.base import ImageSet
from builders.image_sets.open_image_set import open_image_set
from builders.images.read import AS_PUBLISHED, AS_SEEN
from fakeit_eval.test_sets.base import TestSet, read_test_sets

SUITES = ("digits", "imagenet")
"""Each name stands for all test sets whose names begin with it."""


@dataclass(frozen=True)
class OpenedSet:
    images: ImageSet
    row: TestSet | None
    """The row of the table; None for a user's own images."""

    @property
    def difference(self) -> str:
        """How the images differ from the published ones, in words; "" if they do not, or for a user's own images."""
        if self.row is None:
            return ""
        return self.row.difference(len(self.images), len(self.images.class_names))


def open_test_sets(specs: Sequence[str], root: str, policy: str = "") -> list[OpenedSet]:
    """Opens the requested test sets, in their order.

    Args:
        specs: Names, NAME=PATH, suites, or images.
        root: Directory of the published datasets; "" if none is given.
        policy: How images are read. By default test sets of the table are read as their authors read them, and a
            user's own images as a viewer shows them.

    Raises:
        UserError: a test set is unknown or missing, or the path of a published one is not given.
    """
    return [_open(spec, root, policy) for given in specs for spec in _of_suite(given)]


def open_one(spec: str, root: str, policy: str = "") -> ImageSet:
    """Opens images at a path or URL, or a test set by name; a path goes before a name.

    Raises:
        UserError: see `open_test_sets`.
    """
    if Path(spec).exists():
        return replace(open_image_set(spec), policy=policy or AS_SEEN)
    if spec in SUITES:
        raise UserError(f"'{spec}' are several test sets; give one of {', '.join(_of_suite(spec))}")
    return _open(spec, root, policy).images


def _of_suite(spec: str) -> list[str]:
    if spec in SUITES:
        return [name for name in read_test_sets() if name.startswith(spec)]
    return [spec]


def _open(spec: str, root: str, policy: str) -> OpenedSet:
    name, _, path = spec.partition("=")
    row = read_test_sets().get(name)
    if row is None:
        return OpenedSet(replace(open_image_set(spec), policy=policy or AS_SEEN), None)
    if row.prefix and not (path or root):
        raise UserError(f"'{name}' needs the directory of its files; give --root DIR, or write {name}=PATH")
    module = importlib.import_module(f"fakeit_eval.test_sets.{row.module}")
    return OpenedSet(replace(module.open_set(row, path or root), policy=policy or AS_PUBLISHED), row)
