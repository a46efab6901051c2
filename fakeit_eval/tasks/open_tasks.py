"""From what people write after --data to transfer tasks: a task's name, NAME=ROOT, a group of tasks, or data of one's own."""

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import fakeit_eval.tasks as tasks_folder
from builders.format.errors import UserError, near
from builders.images.read import AS_PUBLISHED, AS_SEEN
from fakeit_eval.pictures.base import PictureSet
from fakeit_eval.pictures.hub import PREFIX, load_splits
from fakeit_eval.pictures.open_pictures import open_pictures
from fakeit_eval.tasks.base import GROUPS, Task, read_tasks
from fakeit_eval.tasks.readers import Place

T = TypeVar("T")
FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
"""What a part's folder, or a split of the Hub, may be called."""


@dataclass(frozen=True)
class OpenedTask:
    task: Task
    parts: dict[str, PictureSet]
    """As published: "all", or "train", "test" and perhaps "val"; their classes are the same."""

    def __post_init__(self) -> None:
        first = next(iter(self.parts.values()))
        for part, pictures in self.parts.items():
            if pictures.class_names != first.class_names:
                raise UserError(
                    f"{part} part '{pictures.place}' has other classes than '{first.place}'; give parts of one data set"
                )


def open_tasks(specs: Sequence[str], place: Place, policy: str = "") -> list[OpenedTask]:
    """The tasks that were asked for, in that order; `policy` is how their images are read.

    By default tasks by name are read as their authors read them, and a user's own as they are seen.

    Raises:
        UserError: one is neither in the table nor anywhere, or its files are missing or broken.
    """
    table = read_tasks()
    names = [
        name
        for spec in specs
        for name in ([found for found, row in table.items() if row.group == spec] if spec in GROUPS else [spec])
    ]
    opened = [_open(name, place, table) for name in names]
    return [_read_by(task, policy or (AS_PUBLISHED if task.task.module else AS_SEEN)) for task in opened]


def _read_by(opened: OpenedTask, policy: str) -> OpenedTask:
    return replace(opened, parts={part: replace(found, policy=policy) for part, found in opened.parts.items()})


def open_own(places: dict[str, str], policy: str = "") -> OpenedTask:
    """A task from pictures given part by part: train, test and perhaps val.

    Raises:
        UserError: one cannot be opened, or their classes differ.
    """
    parts = {part: open_pictures(spec) for part, spec in places.items() if spec}
    return _read_by(OpenedTask(Task(name=parts["test"].name), parts), policy or AS_SEEN)


def is_task(spec: str) -> bool:
    """Whether a name, NAME=ROOT, group or folder means a task, rather than a single set of pictures."""
    name, table = spec.partition("=")[0], read_tasks()
    return (
        name in table
        or spec in GROUPS
        or _plug_in(name, {row.module for row in table.values()}) is not None
        or has_parts(spec)
    )


def has_parts(spec: str) -> bool:
    """Whether a folder holds parts: one for training and one to test on, whatever they are called."""
    root = Path(spec)
    if not root.is_dir():
        return False
    found = {entry.name for entry in root.iterdir() if entry.is_dir()}
    return bool(found & set(FOLDERS["train"])) and bool(found & {*FOLDERS["val"], *FOLDERS["test"]})


def _open(spec: str, place: Place, table: dict[str, Task]) -> OpenedTask:
    name, _, root = spec.partition("=")
    task = table.get(name) or _plug_in(name, {row.module for row in table.values()})
    if task is not None:
        if not (root or place.root or task.group == "offline"):
            raise UserError(f"'{name}' has to be somewhere; give --root DIR, or --data {name}=DIR")
        module = importlib.import_module(f"{tasks_folder.__name__}.{task.module}")
        return OpenedTask(task, module.open_parts(task, Place(root=root or place.root, download=place.download)))
    if spec.startswith(PREFIX):
        identifier = spec.removeprefix(PREFIX)
        return OpenedTask(Task(name=identifier), _named_parts(load_splits(identifier), spec))
    if Path(spec).is_dir():
        if has_parts(spec):
            places = _named_parts({entry.name: str(entry) for entry in sorted(Path(spec).iterdir())}, spec)
            return OpenedTask(Task(name=Path(spec).name), {p: open_pictures(places[p]) for p in places})
        return OpenedTask(Task(name=Path(spec).name), {"all": open_pictures(spec)})
    raise UserError(
        f"unknown task '{spec}'; {near(name, list(table))}, a folder with train and test in it, or {PREFIX}user/name"
    )


def _named_parts(found: dict[str, T], spec: str) -> dict[str, T]:
    parts = {part: next((found[name] for name in names if name in found), None) for part, names in FOLDERS.items()}
    if parts["train"] is None:
        raise UserError(
            f"'{spec}' has no train part among {', '.join(found)}; give --train, --val and --test by themselves"
        )
    if parts["test"] is None:  # what is called validation is all that there is to test on, then
        parts = {"train": parts["train"], "test": parts["val"]}
    given = {part: value for part, value in parts.items() if value is not None}
    return given if "test" in given else {"all": given["train"]}


def _plug_in(name: str, of_table: set[str]) -> Task | None:
    """A module of this folder with `open_parts` that no row of the table speaks of."""
    names = {module.name for module in pkgutil.iter_modules(tasks_folder.__path__)} - of_table
    if name not in names or not hasattr(importlib.import_module(f"{tasks_folder.__name__}.{name}"), "open_parts"):
        return None
    return Task(name=name, module=name)
