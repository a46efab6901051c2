"""What tasks share that stand on torchvision's readers: paths and labels without a look at pictures, errors as sentences."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from builders.errors import UserError, first_line
from fakeit_eval.image_sets.base import ImageSet
from fakeit_eval.image_sets.files import open_files


@dataclass(frozen=True, kw_only=True)
class DataRoot:
    """Where data sets lie."""

    root: str
    download: bool = False
    """Whether what is missing may be downloaded into `root`, by torchvision."""


def path_of(path: Any) -> str:
    """In the role of torchvision's `loader`: the path instead of the picture."""
    return str(path)


def read_listed(
    task_name: str,
    data_root: DataRoot,
    open_reader: Callable[[], Any],
    classes: Callable[[Any], list[str]] | None = None,
) -> ImageSet:
    """The pictures that a reader of torchvision lists, opened with `loader=path_of`.

    Raises:
        UserError: the data set is not there, or a file of it is broken or missing.
    """
    reader = guarded(task_name, data_root, open_reader)
    listed = sorted(
        (str(path), int(label)) for path, label in guarded(task_name, data_root, lambda: list(_items(reader)))
    )
    names = guarded(task_name, data_root, lambda: classes(reader) if classes else list(reader.classes))
    labels = np.array([label for _, label in listed], dtype=np.int64)
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
        raise UserError(
            f"'{task_name}' in '{data_root.root}' has labels {labels.min()} to {labels.max()} of {len(names)} classes; "
            "unpack the data set again"
        )
    return open_files([path for path, _ in listed], labels, tuple(names), root=data_root.root, name=task_name)


def read_splits(
    task_name: str, data_root: DataRoot, reader: Callable[..., Any], splits: Sequence[str]
) -> dict[str, ImageSet]:
    """`read_listed` for each part of a reader that takes the part's name, `download` and `loader`."""
    return {
        split: read_listed(
            task_name, data_root, partial(reader, data_root.root, split, download=data_root.download, loader=path_of)
        )
        for split in splits
    }


def guarded(task_name: str, data_root: DataRoot, read: Callable[[], Any]) -> Any:
    """What a reader of published files gives, or the sentence that names what is wrong with them."""
    try:
        return read()
    except ModuleNotFoundError:
        raise
    except UserError:
        raise
    except Exception as error:  # readers fail on broken files in as many ways as there are formats
        way_out = (
            "unpack it again"
            if data_root.download
            else "see docs/evaluation.md for where it should lie, or add --download"
        )
        raise UserError(
            f"'{task_name}' cannot be read in '{data_root.root}' ({first_line(error)}); {way_out}"
        ) from None


def _items(reader: Any) -> Any:
    return (reader[number] for number in range(len(reader)))
