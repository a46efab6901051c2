"""The engine that paints nothing: real images from class folders, `<source>/<class>/…/<image>`, in sorted order.

A file that already has the clone's format, and looks the same to every reader, is kept byte for byte; any other is encoded
again (`images/encode.py`).
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from builders.classes.class_ids import class_ids
from builders.format.distribution import versions
from builders.images.encode import stored
from builders.images.source import SourceFile, pinned_images, read_source
from builders.making.engines.base import Paint, Painted
from builders.making.plan import Sample
from builders.making.recipe import Recipe


def load(recipe: Recipe) -> Paint:
    images = pinned_images(recipe.model_dir, recipe.revision or read_source(recipe.model_dir).digest)
    files = {identity: images[name] for name, identity in class_ids(images).items()}

    def paint(samples: Sequence[Sample]) -> list[Painted]:
        return [_painted(files[sample.wnid][sample.index], recipe) for sample in samples]

    return paint


def environment(recipe: Recipe) -> dict[str, str]:
    return {**versions("pillow"), "device": "none"}


def _painted(file: SourceFile, recipe: Recipe) -> Painted:
    path = os.path.join(recipe.model_dir, file.path)
    try:
        content = Path(path).read_bytes()
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise ValueError("it changed while the clone was made")
        picture, change = stored(content, recipe.image_format, recipe.image_quality, recipe.background_color)
    except (ValueError, OSError) as error:
        return Painted(b"", problem=f"'{path}' cannot be read ({error})")
    return Painted(picture, change=change)
