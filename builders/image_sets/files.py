"""Reads images from files: class folders (`<root>/<class>/…`), or paths and labels that a task's annotations list."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from builders.errors import UserError
from builders.image_sets.base import ImageSet, Labels, digest_of
from builders.images.folders import list_class_folders, readable
from builders.images.read import ReadImage, read_image


def open_folder(root: str, name: str = "") -> ImageSet:
    """Opens class folders; a class folder may have subfolders with images.

    Args:
        name: Name in tables of results; by default the folder's name.

    Raises:
        UserError: the directory is missing, has no class folders, or a class folder has no image.
    """
    folders = list_class_folders(root)
    paths = [folders.path(path) for some in folders.images.values() for path in some]
    labels = np.repeat(np.arange(len(folders.images)), [len(some) for some in folders.images.values()])
    found = open_files(paths, labels, tuple(folders.images), root=root, name=name or Path(root).resolve().name)
    return replace(found, note=folders.note)


def open_files(paths: Sequence[str], labels: Labels, class_names: tuple[str, ...], *, root: str, name: str) -> ImageSet:
    """Opens image files with labels.

    Args:
        paths: Paths of the n files.
        labels: Labels (n,), indices into `class_names`.
        root: Directory of the dataset; the digest depends on paths relative to it.
        name: Name in tables of results.

    Raises:
        UserError: a file is missing, or the list is empty.
    """
    if not paths:
        raise UserError(f"there is no image of '{name}' in '{root}'; unpack the dataset there")
    lines, times = [], hashlib.sha256()
    for path, label in zip(paths, labels, strict=True):
        try:
            status = os.stat(path)
        except OSError as error:
            raise UserError(
                f"'{path}' of '{name}' cannot be found ({error.strerror}); unpack the dataset again"
            ) from None
        lines.append(f"{os.path.relpath(path, root)}\t{status.st_size}\t{class_names[label]}")
        times.update(status.st_mtime_ns.to_bytes(16, "little", signed=True))
    return ImageSet(
        name=name,
        location=root,
        class_names=class_names,
        labels=np.asarray(labels, dtype=np.int64),
        digest=digest_of(lines),
        state=times.hexdigest(),
        read=_ReadFiles(tuple(map(str, paths))),
        key_of=lambda number: readable(os.path.relpath(paths[number], root)),
    )


@dataclass(frozen=True)
class _ReadFiles:
    paths: tuple[str, ...]

    def __call__(self, number: int, policy: str) -> ReadImage:
        path = self.paths[number]
        try:
            return read_image(Path(path).read_bytes(), policy)
        except (ValueError, OSError) as error:
            raise UserError(f"'{path}' cannot be read ({error}); unpack the dataset again") from None
