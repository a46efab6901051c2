"""Reads any dataset of the Hub that has an image and a class column, through stock `datasets`: hub:user/name@split."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from builders.errors import UserError, first_line, suggest
from builders.image_sets.base import ImageSet
from builders.images.read import ReadImage, read_image

PREFIX = "hub:"
TEST_SPLITS = ("test", "validation", "val", "valid")
"""Names of a split to test on; the first one that a dataset has is used."""


class _UnlabeledError(UserError):
    """A split is published without labels."""


def open_hub(spec: str) -> ImageSet:
    """Opens one split of a dataset: `hub:user/name@split`, or `hub:user/name:config@split`.

    Without a split it opens the split to test on.

    Raises:
        UserError: the dataset cannot be loaded, or has no such split, no image column or no class column.
    """
    identifier, _, split = spec.removeprefix(PREFIX).partition("@")
    if split:
        return _as_image_set(_load(identifier, split), f"{identifier}@{split}")
    splits = load_splits(identifier)
    if not (found := next((splits[name] for name in TEST_SPLITS if name in splits), None)):
        raise UserError(
            f"'{spec}' has no test split among {', '.join(splits)}; give {PREFIX}{identifier}@{next(iter(splits))}"
        )
    return found


def load_splits(identifier: str) -> dict[str, ImageSet]:
    """Opens all splits of a dataset, by name; splits without labels are left out.

    Raises:
        UserError: the dataset cannot be loaded, or has no image column, no class column or no labels.
    """
    found = {}
    for name, rows in _load(identifier, None).items():
        try:
            found[name] = _as_image_set(rows, f"{identifier}@{name}")
        except _UnlabeledError as error:
            unlabeled = error
    if not found:
        raise unlabeled
    return found


def _load(identifier: str, split: str | None) -> Any:
    import datasets

    path, _, config = identifier.partition(":")
    try:
        return datasets.load_dataset(path, config or None, split=split)
    except Exception as error:  # the library and the network raise many kinds of errors
        name = f"{PREFIX}{identifier}" + (f"@{split}" if split else "")
        raise UserError(
            f"'{name}' cannot be loaded ({first_line(error)}); check its name, and that you are logged in"
        ) from None


def _as_image_set(rows: Any, identifier: str) -> ImageSet:
    import datasets

    kinds = dict(rows.features)
    image = next((name for name, kind in kinds.items() if isinstance(kind, datasets.Image)), None)
    label = next((name for name, kind in kinds.items() if isinstance(kind, datasets.ClassLabel)), None)
    if image is None or label is None:
        what = "image" if image is None else "class label"
        raise UserError(
            f"'{PREFIX}{identifier}' has no {what} column among {', '.join(kinds)}; {suggest(what, list(kinds))}"
        )
    labels = np.asarray(rows.with_format("numpy")[label], dtype=np.int64)
    if (labels < 0).any():
        raise _UnlabeledError(
            f"'{PREFIX}{identifier}' is published without labels (some are -1); give a split with labels"
        )
    files = "\n".join(f"{url} {found}" for url, found in sorted((rows.download_checksums or {}).items()))
    return ImageSet(
        name=identifier,
        location=f"{PREFIX}{identifier}",
        class_names=tuple(kinds[label].names),
        labels=labels,
        digest="sha256:" + hashlib.sha256(f"{identifier}\n{len(rows)}\n{files}".encode()).hexdigest(),
        state=str(rows._fingerprint),
        read=_ReadRows(rows.cast_column(image, datasets.Image(decode=False)), image),
    )


@dataclass(frozen=True)
class _ReadRows:
    rows: Any
    column: str

    def __call__(self, number: int, policy: str) -> ReadImage:
        image = self.rows[number][self.column]
        try:
            return read_image(image["bytes"] or Path(image["path"]).read_bytes(), policy)
        except (ValueError, OSError, TypeError) as error:
            raise UserError(f"image {number} of '{self.rows.info.dataset_name}' cannot be read ({error})") from None
