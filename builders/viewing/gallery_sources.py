"""Reads the images that a gallery shows, from a clone or from class folders of real images."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from builders.classes.class_ids import class_ids
from builders.errors import SampleNotFoundError, UserError
from builders.format.names import MANIFEST
from builders.format.open_clone import Clone, open_clone
from builders.images.encode import as_shown
from builders.images.folders import list_class_folders, readable

NUM_OPEN_SHARDS = 256
"""Number of shards whose metadata stays in memory."""
COLUMNS_SHOWN = (
    "prompt", "seed", "background", "guidance_scale", "num_inference_steps", "nsfw", "index", "attempt", "prompt_index",
)  # fmt: skip
"""Metadata fields that the page shows for an image."""


@dataclass(frozen=True, kw_only=True)
class GalleryImage:
    key: str
    """Key in the clone, or path below the root of class folders."""
    content: bytes
    extension: str
    about: dict[str, Any]


class Source:
    """Images of a clone by class, in a random order that is the same every time."""

    def __init__(self, root: str, title: str) -> None:
        self.clone: Clone = open_clone(root)
        self.root, self.title = root, title
        self.numbers = _by_class(self.clone)
        self._metadata = lru_cache(maxsize=NUM_OPEN_SHARDS)(self._read_metadata)

    def _read_metadata(self, shard: int) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = self.clone.metadata(shard, list(COLUMNS_SHOWN)).to_pydict()
        return found

    @property
    def classes(self) -> dict[str, int]:
        """Number of images of each class id."""
        return {name: len(found) for name, found in self.numbers.items()}

    @property
    def settings(self) -> dict[str, Any]:
        recipe = self.clone.manifest.recipe
        if not self.clone.manifest.is_synthetic:
            return {"name": recipe["name"]}
        names = (
            "name", "prompt", "prompts_source", "images_per_prompt", "model", "guidance_scale", "num_inference_steps",
            "adapters",
        )  # fmt: skip
        return {name: recipe[name] for name in names if recipe.get(name) not in (None, [], "")}

    def has(self, key: str) -> bool:
        """Whether an image has this key."""
        try:
            return self.clone.find(key) >= 0
        except SampleNotFoundError:
            return False

    def images(self, class_id: str, count: int, keys: Sequence[str] = ()) -> Iterator[GalleryImage]:
        """Yields the first `count` images of a class in the random order, then the images with the given keys."""
        extension = str(self.clone.manifest.recipe.get("image_format", "jpg"))
        chosen = self.numbers.get(class_id, [])[:count]
        for number in dict.fromkeys([*chosen, *map(self.clone.find, keys)]):
            sample = self.clone[number]
            shard, row = self.clone.locate(number)
            about = {name: values[row] for name, values in self._metadata(shard).items()}
            yield GalleryImage(key=sample.key, content=sample.image, extension=extension, about=about)


class Folders(Source):
    """Images of class folders, with the interface of a clone's source."""

    def __init__(self, root: str, title: str) -> None:
        self.root, self.title, self.folders = root, title, list_class_folders(root)
        self.paths = {
            identity: sorted(self.folders.images[name], key=lambda path: _order(path.rpartition("/")[2]))
            for name, identity in class_ids(self.folders.images).items()
        }

    @property
    def classes(self) -> dict[str, int]:
        return {name: len(paths) for name, paths in self.paths.items()}

    @property
    def settings(self) -> dict[str, Any]:
        return {"name": "class folders"}

    def has(self, key: str) -> bool:
        return any(readable(name) == key for paths in self.paths.values() for name in paths)

    def images(self, class_id: str, count: int, keys: Sequence[str] = ()) -> Iterator[GalleryImage]:
        paths = self.paths.get(class_id, [])
        named = {readable(name): name for name in paths} if keys else {}
        for name in dict.fromkeys([*paths[:count], *(named[key] for key in keys if key in named)]):
            path = Path(self.folders.path(name))
            try:
                content, extension = as_shown(path.read_bytes())
            except (ValueError, OSError) as error:
                raise UserError(f"'{path}' cannot be read ({error}); repair or remove it") from None
            yield GalleryImage(key=readable(name), content=content, extension=extension, about={})


def open_source(root: str, title: str) -> Source:
    """Opens a clone or a directory of class folders.

    Raises:
        UserError: `root` is neither.
    """
    is_folders = Path(root).is_dir() and not (Path(root) / MANIFEST).exists()
    return Folders(root, title) if is_folders else Source(root, title)


def _by_class(clone: Clone) -> dict[str, list[int]]:
    """Returns the sample numbers of each class, ordered by the hash of their shard, then of their key.

    Every shard holds images of each class, so this order reads all classes from the same few shards.
    """
    found: dict[str, list[tuple[bytes, bytes, int]]] = {name: [] for name in clone.manifest.label_names}
    for shard, start in enumerate(clone.shard_starts[:-1]):
        index, shard_order = clone.shard_index(shard), _order(str(shard))
        for row, (key, label) in enumerate(zip(index["key"], index["label"], strict=True)):
            found[clone.manifest.label_names[label]].append((shard_order, _order(key), start + row))
    return {name: [number for _, _, number in sorted(numbers)] for name, numbers in found.items()}


def _order(key: str) -> bytes:
    return hashlib.sha256(os.fsencode(key)).digest()
