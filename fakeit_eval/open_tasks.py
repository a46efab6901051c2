"""Opens the transfer tasks of --data: a task's name, NAME=ROOT, a family of tasks, or the user's own data."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from builders.errors import UserError, suggest
from builders.image_sets.annotation_files import DataRoot
from builders.image_sets.base import ImageSet
from builders.image_sets.hub import PREFIX, load_splits
from builders.image_sets.open_image_set import open_image_set
from builders.images.read import AS_PUBLISHED, AS_SEEN
from builders.plugins import module_names
from fakeit_eval.tasks.base import FAMILIES, Task, read_tasks

T = TypeVar("T")
FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
"""Names that the folder of a split, or a split of the Hub, may have."""


@dataclass(frozen=True)
class OpenedTask:
    task: Task
    splits: dict[str, ImageSet]
    """The published splits: "all", or "train", "test" and perhaps "val"; they have the same classes."""

    def __post_init__(self) -> None:
        first = next(iter(self.splits.values()))
        for split, images in self.splits.items():
            if images.class_names != first.class_names:
                raise UserError(
                    f"the {split} split '{images.location}' has other classes than '{first.location}'; "
                    "give splits of one dataset"
                )


def open_tasks(specs: Sequence[str], data_root: DataRoot, policy: str = "") -> list[OpenedTask]:
    """Opens the requested tasks, in their order.

    Args:
        specs: Names, NAME=ROOT, families, folders, or hub:user/name.
        policy: How images are read. By default tasks of the table are read as their authors read them, and a user's
            own images as a viewer shows them.

    Raises:
        UserError: a task is unknown, or its files are missing or broken.
    """
    table = read_tasks()
    names = [
        name
        for spec in specs
        for name in ([found for found, row in table.items() if row.family == spec] if spec in FAMILIES else [spec])
    ]
    opened = [_open(name, data_root, table) for name in names]
    return [_read_by(task, policy or (AS_PUBLISHED if task.task.module else AS_SEEN)) for task in opened]


def _read_by(opened: OpenedTask, policy: str) -> OpenedTask:
    return replace(opened, splits={split: replace(found, policy=policy) for split, found in opened.splits.items()})


def open_own(paths: dict[str, str], policy: str = "") -> OpenedTask:
    """Opens a task whose images are given split by split: train, test and perhaps val.

    Raises:
        UserError: a split cannot be opened, or the splits have different classes.
    """
    splits = {split: open_image_set(spec) for split, spec in paths.items() if spec}
    return _read_by(OpenedTask(Task(name=splits["test"].name), splits), policy or AS_SEEN)


def is_task(spec: str) -> bool:
    """Whether a name, NAME=ROOT, family or folder means a task, rather than a single image set."""
    name, table = spec.partition("=")[0], read_tasks()
    return (
        name in table
        or spec in FAMILIES
        or _plug_in(name, {row.module for row in table.values()}) is not None
        or has_splits(spec)
    )


def has_splits(spec: str) -> bool:
    """Whether a folder holds splits: one to train on and one to test on, under any of the names in `FOLDERS`."""
    root = Path(spec)
    if not root.is_dir():
        return False
    found = {entry.name for entry in root.iterdir() if entry.is_dir()}
    return bool(found & set(FOLDERS["train"])) and bool(found & {*FOLDERS["val"], *FOLDERS["test"]})


def _open(spec: str, data_root: DataRoot, table: dict[str, Task]) -> OpenedTask:
    name, _, root = spec.partition("=")
    task = table.get(name) or _plug_in(name, {row.module for row in table.values()})
    if task is not None:
        if not (root or data_root.root or task.family == "offline"):
            raise UserError(f"'{name}' needs the directory of its files; give --root DIR, or --data {name}=DIR")
        module = importlib.import_module(f"fakeit_eval.tasks.{task.module}")
        return OpenedTask(
            task, module.open_splits(task, DataRoot(root=root or data_root.root, download=data_root.download))
        )
    if spec.startswith(PREFIX):
        identifier = spec.removeprefix(PREFIX)
        return OpenedTask(Task(name=identifier), _named_splits(load_splits(identifier), spec))
    if Path(spec).is_dir():
        if has_splits(spec):
            paths = _named_splits({entry.name: str(entry) for entry in sorted(Path(spec).iterdir())}, spec)
            return OpenedTask(Task(name=Path(spec).name), {p: open_image_set(paths[p]) for p in paths})
        return OpenedTask(Task(name=Path(spec).name), {"all": open_image_set(spec)})
    raise UserError(
        f"unknown task '{spec}'; {suggest(name, list(table))}, a folder with train and test in it, or {PREFIX}user/name"
    )


def _named_splits(found: dict[str, T], spec: str) -> dict[str, T]:
    splits = {split: next((found[name] for name in names if name in found), None) for split, names in FOLDERS.items()}
    if splits["train"] is None:
        raise UserError(
            f"'{spec}' has no train split among {', '.join(found)}; give --train, --val and --test separately"
        )
    # Without a test split, the validation split is the test split.
    if splits["test"] is None:
        splits = {"train": splits["train"], "test": splits["val"]}
    given = {split: value for split, value in splits.items() if value is not None}
    return given if "test" in given else {"all": given["train"]}


def _plug_in(name: str, of_table: set[str]) -> Task | None:
    """The task of a module of fakeit_eval/tasks that has `open_splits` but no row in the table."""
    names = {*module_names("fakeit_eval.tasks")} - of_table
    if name not in names or not hasattr(importlib.import_module(f"fakeit_eval.tasks.{name}"), "open_splits"):
        return None
    return Task(name=name, module=name)
