"""An image set: labeled images from any source, which is the input of feature extraction.

The other modules of this folder make image sets from class folders, archives, clones, datasets of the Hub, and arrays.
"""

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from builders.images.read import AS_SEEN, Pixels, ReadImage

Labels = NDArray[np.int64]
Read = Callable[[int, str], ReadImage]
"""Reads the pixels of an image, given its index and a policy (`AS_SEEN` or `AS_PUBLISHED`). It raises UserError if the
image is missing or broken. A copy of the function shares no open file with the original."""


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    name: str
    """Name in tables of results."""
    location: str
    """Directory, archive or URL, for messages and results."""
    class_names: tuple[str, ...]
    """Class ids if the dataset has them, else the names of its class folders."""
    display_names: tuple[str, ...] = ()
    """Readable names of the classes, in the order of `class_names`; () if only ids are known."""
    labels: Labels
    """Labels (n,), indices into `class_names`."""
    digest: str
    """Identifies the images; it does not depend on where they are."""
    state: str = ""
    """Changes when files with the same digest may have changed, such as modification times; only caches use it."""
    policy: str = AS_SEEN
    """How files are read: `AS_SEEN`, or `AS_PUBLISHED` for datasets whose results are compared with published ones."""
    read: Read
    """Reads an image by its index and a policy."""
    note: str = ""
    """A sentence about files that are left out; "" if there are none."""
    key_of: Callable[[int], str] = str
    """Returns the name of an image, by its index: a clone's key, a file's path below its root, or else the index."""
    prompt_ids: Callable[[], Labels] | None = None
    """Reads a number (n,) for each image, equal for images of the same prompt; None if the images have no prompts."""
    seed: int | None = None
    """Seed of a clone's recipe; images of two clones with the same key and seed share their noise."""

    def __len__(self) -> int:
        return len(self.labels)

    def __copy__(self) -> "ImageSet":
        return replace(self, read=copy.copy(self.read))

    def readable(self) -> "ImageSet":
        """Returns the images without the functions that only this process needs, so that other processes can get them."""
        return replace(self, key_of=str, prompt_ids=None)

    def read_labeled(self, number: int) -> tuple[ReadImage, int]:
        """Reads an image and its label.

        Raises:
            UserError: the image is missing or broken.
        """
        return self.read(number, self.policy), int(self.labels[number])

    def decoded(self, number: int) -> tuple[Pixels, int]:
        """Reads an image as RGB pixels (height, width, 3), and its label."""
        image, label = self.read_labeled(number)
        return image.pixels, label

    def subset(self, rows: NDArray[np.int64]) -> "ImageSet":
        """The images with the indices `rows`, in this order; classes and labels stay the same."""
        if np.array_equal(rows, np.arange(len(self))):
            return self
        digest = hashlib.sha256(self.digest.encode() + rows.astype("<i8").tobytes()).hexdigest()
        return replace(
            self,
            labels=self.labels[rows],
            digest=f"sha256:{digest}",
            read=_ReadRows(self.read, rows),
            key_of=lambda number: self.key_of(int(rows[number])),
            prompt_ids=(lambda: self.prompt_ids()[rows]) if self.prompt_ids else None,  # type: ignore[misc]
        )


@dataclass(frozen=True)
class _ReadRows:
    read: Read
    rows: NDArray[np.int64]

    def __call__(self, number: int, policy: str) -> ReadImage:
        return self.read(int(self.rows[number]), policy)

    def __copy__(self) -> "_ReadRows":
        return _ReadRows(copy.copy(self.read), self.rows)


def digest_of(lines: Sequence[str]) -> str:
    """sha256 of the lines of a listing."""
    return "sha256:" + hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()
