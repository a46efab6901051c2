"""What tasks share that stand on torchvision's readers: paths and labels without a look at pictures, errors as sentences."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from builders.format.errors import UserError, first_line
from fakeit_eval.pictures.base import PictureSet
from fakeit_eval.pictures.files import open_files


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where data sets lie."""

    root: str
    download: bool = False
    """Whether what is missing may be downloaded into `root`, by torchvision."""


def path_of(path: Any) -> str:
    """In the role of torchvision's `loader`: the path instead of the picture."""
    return str(path)


def read_listed(
    task_name: str, place: Place, open_reader: Callable[[], Any], classes: Callable[[Any], list[str]] | None = None
) -> PictureSet:
    """The pictures that a reader of torchvision lists, opened with `loader=path_of`.

    Raises:
        UserError: the data set is not there, or a file of it is broken or missing.
    """
    reader = guarded(task_name, place, open_reader)
    listed = sorted((str(path), int(label)) for path, label in guarded(task_name, place, lambda: list(_items(reader))))
    names = guarded(task_name, place, lambda: classes(reader) if classes else list(reader.classes))
    labels = np.array([label for _, label in listed], dtype=np.int64)
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
        raise UserError(
            f"'{task_name}' in '{place.root}' has labels {labels.min()} to {labels.max()} of {len(names)} classes; "
            "unpack the data set again"
        )
    return open_files([path for path, _ in listed], labels, tuple(names), root=place.root, name=task_name)


def read_splits(
    task_name: str, place: Place, reader: Callable[..., Any], parts: Sequence[str]
) -> dict[str, PictureSet]:
    """`read_listed` for each part of a reader that takes the part's name, `download` and `loader`."""
    return {
        part: read_listed(task_name, place, partial(reader, place.root, part, download=place.download, loader=path_of))
        for part in parts
    }


def guarded(task_name: str, place: Place, read: Callable[[], Any]) -> Any:
    """What a reader of published files gives, or the sentence that names what is wrong with them."""
    try:
        return read()
    except ModuleNotFoundError:
        raise
    except UserError:
        raise
    except Exception as error:  # readers fail on broken files in as many ways as there are formats
        way_out = (
            "unpack it again" if place.download else "see docs/evaluation.md for where it should lie, or add --download"
        )
        raise UserError(f"'{task_name}' cannot be read in '{place.root}' ({first_line(error)}); {way_out}") from None


def _items(reader: Any) -> Any:
    return (reader[number] for number in range(len(reader)))
