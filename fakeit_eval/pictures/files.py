"""Pictures in files: class folders (`<root>/<class>/…`), or any list of paths with labels that a task has read."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from builders.format.errors import UserError
from builders.format.images import decode_foreign_image
from fakeit_eval.pictures.base import Labels, PictureSet, Pixels, digest_of, is_picture


def open_folder(root: str, name: str = "") -> PictureSet:
    """Class folders; a class's pictures may lie in folders of its own.

    Raises:
        UserError: it is no directory, or has no class folder with pictures.
    """
    if not Path(root).is_dir():
        raise UserError(f"'{root}' is no directory; give a directory of class folders, an archive, or a clone")
    folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != ".")
    found = {folder: _pictures_below(os.path.join(root, folder)) for folder in folders}
    found = {folder: paths for folder, paths in found.items() if paths}
    if not found:
        raise UserError(f"'{root}' has no class folders with pictures; it should hold one folder of pictures a class")
    paths = [path for some in found.values() for path in some]
    labels = np.repeat(np.arange(len(found)), [len(some) for some in found.values()])
    return open_files(paths, labels, tuple(found), root=root, name=name or Path(root).resolve().name)


def open_files(
    paths: Sequence[str], labels: Labels, class_names: tuple[str, ...], *, root: str, name: str
) -> PictureSet:
    """Named files with labels.

    Raises:
        UserError: one is missing, or there is none.
    """
    if not paths:
        raise UserError(f"there is no picture of '{name}' in '{root}'; is it unpacked there?")
    lines, times = [], hashlib.sha256()
    for path, label in zip(paths, labels, strict=True):
        try:
            status = os.stat(path)
        except OSError as error:
            raise UserError(
                f"'{path}' of '{name}' cannot be found ({error.strerror}); unpack the data set again"
            ) from None
        lines.append(f"{os.path.relpath(path, root)}\t{status.st_size}\t{class_names[label]}")
        times.update(status.st_mtime_ns.to_bytes(16, "little", signed=True))
    return PictureSet(
        name=name,
        place=root,
        class_names=class_names,
        labels=np.asarray(labels, dtype=np.int64),
        digest=digest_of(lines),
        state=times.hexdigest(),
        read=_ReadFiles(tuple(map(str, paths))),
    )


@dataclass(frozen=True)
class _ReadFiles:
    paths: tuple[str, ...]

    def __call__(self, number: int) -> Pixels:
        path = self.paths[number]
        try:
            return decode_foreign_image(Path(path).read_bytes())
        except (ValueError, OSError) as error:
            raise UserError(f"'{path}' cannot be read ({error}); unpack the data set again") from None


def _pictures_below(folder: str) -> list[str]:
    found = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        found += [os.path.join(parent, name) for name in sorted(files) if is_picture(name)]
    return sorted(found)
