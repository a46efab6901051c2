"""Reads the annotation files of published datasets by torchvision: paths and labels, without opening an image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from builders.errors import UserError, first_line
from builders.image_sets.base import ImageSet
from builders.image_sets.files import open_files


@dataclass(frozen=True, kw_only=True)
class DataRoot:
    """Where published datasets are."""

    root: str
    """Directory of the datasets."""
    download: bool = False
    """Whether torchvision may download missing datasets into `root`."""


def path_of(path: Any) -> str:
    """Returns the path unread, as the `loader` of a torchvision dataset."""
    return str(path)


def read_listed(
    task_name: str,
    data_root: DataRoot,
    open_reader: Callable[[], Any],
    classes: Callable[[Any], list[str]] | None = None,
) -> ImageSet:
    """Opens the images that a torchvision dataset lists.

    Args:
        open_reader: Opens the torchvision dataset with `loader=path_of`.
        classes: Returns the class names of the dataset; by default its attribute `classes`.

    Raises:
        UserError: the dataset is not there, or a file of it is broken or missing.
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
            "unpack the dataset again"
        )
    return open_files([path for path, _ in listed], labels, tuple(names), root=data_root.root, name=task_name)


def read_splits(
    task_name: str, data_root: DataRoot, reader: Callable[..., Any], splits: Sequence[str]
) -> dict[str, ImageSet]:
    """Opens each split of a torchvision dataset that takes the split's name, `download` and `loader`."""
    return {
        split: read_listed(
            task_name, data_root, partial(reader, data_root.root, split, download=data_root.download, loader=path_of)
        )
        for split in splits
    }


def guarded(task_name: str, data_root: DataRoot, read: Callable[[], Any]) -> Any:
    """Calls a reader of published files, and turns its errors into one sentence.

    Raises:
        UserError: a file is broken or missing.
    """
    try:
        return read()
    except ModuleNotFoundError:
        raise
    except UserError:
        raise
    except Exception as error:  # each file format raises errors of its own
        way_out = "unpack it again" if data_root.download else "see docs/evaluation.md for its path, or add --download"
        raise UserError(
            f"'{task_name}' cannot be read in '{data_root.root}' ({first_line(error)}); {way_out}"
        ) from None


def _items(reader: Any) -> Any:
    return (reader[number] for number in range(len(reader)))
