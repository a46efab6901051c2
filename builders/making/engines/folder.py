"""The engine that paints nothing: real images from class folders, `<source>/<class>/<picture>`, in sorted order.

A file that already has the clone's format is kept byte for byte; any other is decoded and encoded again.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from builders.classes.custom import class_id, in_order_of_ids
from builders.format.distribution import versions
from builders.format.errors import ShardError, UserError
from builders.format.images import decode_image, read_image_header
from builders.making.engines.base import Paint, Painted
from builders.making.plan import Sample
from builders.making.recipe import Recipe

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")


@lru_cache(maxsize=4)
def list_class_folders(source: str) -> dict[str, list[Path]]:
    """Class ids in sorted order, each with its folder's pictures in sorted order.

    Raises:
        UserError: there is no such directory, or no class folder with pictures in it.
    """
    root = Path(source)
    if not source:
        raise UserError("real images need their source; give --source DIR, a directory of class folders")
    if not root.is_dir():
        raise UserError(f"'{source}' is no directory; give --source a directory of class folders")
    folders = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and folder.name[0] != "."]
    if not folders:
        raise UserError(f"'{source}' has no class folders; it should hold one folder of pictures a class")
    pictures = {folder.name: _pictures(folder) for folder in folders}
    for name, found in pictures.items():
        if not found:
            raise UserError(f"class folder '{root / name}' holds no jpg, png or webp picture; fill or remove it")
    return in_order_of_ids((name, class_id(name), found) for name, found in pictures.items())


def listing_digest(source: str) -> str:
    """sha256 over the relative names and sizes of all pictures: which real images these are."""
    lines = [
        f"{name}/{path.name}\t{path.stat().st_size}"
        for name, paths in list_class_folders(source).items()
        for path in paths
    ]
    return "sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()


def load(recipe: Recipe) -> Paint:
    folders = list_class_folders(recipe.model_dir)

    def paint(samples: Sequence[Sample]) -> list[Painted]:
        return [Painted(_read(folders[sample.wnid][sample.index], recipe.image_format)) for sample in samples]

    return paint


def environment(recipe: Recipe) -> dict[str, str]:
    return {**versions("pillow"), "device": "none"}


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS)


def _read(path: Path, image_format: str) -> "NDArray[np.uint8] | bytes":
    try:
        content = path.read_bytes()
        header = read_image_header(content)
        is_ready = header.image_format == image_format and header.mode in ("RGB", "L")
        return content if is_ready else decode_image(content)
    except (ValueError, OSError) as error:
        raise ShardError(f"'{path}' cannot be read ({error}); repair or remove it") from None
