"""From what people write after --data to test sets: a set's name, NAME=PLACE, a group of sets, or pictures anywhere."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from builders.errors import UserError
from builders.images.read import AS_PUBLISHED, AS_SEEN
from fakeit_eval.image_sets.base import ImageSet
from fakeit_eval.image_sets.open_image_set import open_image_set
from fakeit_eval.test_sets.base import TestSet, read_test_sets

SUITES = ("digits", "imagenet")
"""Each stands for all sets whose names begin with it."""


@dataclass(frozen=True)
class OpenedSet:
    images: ImageSet
    row: TestSet | None
    """None for pictures that are in no table."""

    @property
    def difference(self) -> str:
        """From the published set, in words; "" where there is none or nothing is published."""
        if self.row is None:
            return ""
        return self.row.difference(len(self.images), len(self.images.class_names))


def open_test_sets(specs: Sequence[str], root: str, policy: str = "") -> list[OpenedSet]:
    """The test sets that were asked for, in that order; `policy` is how their images are read.

    By default sets of the table are read as their authors read them, and a user's own as they are seen.

    Raises:
        UserError: one is neither in the table nor anywhere, or its place is not known.
    """
    return [_open(spec, root, policy) for given in specs for spec in _of_suite(given)]


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
        raise UserError(f"'{name}' has to be somewhere; give --root DIR, or --data {name}=PLACE")
    module = importlib.import_module(f"fakeit_eval.test_sets.{row.module}")
    return OpenedSet(replace(module.open_set(row, path or root), policy=policy or AS_PUBLISHED), row)
