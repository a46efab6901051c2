"""A set of labelled pictures, wherever it lies: what tasks hand to feature extraction.

Each module of this folder makes one: from class folders, archives, clones, the Hub, or arrays.
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
"""From a picture's number and a policy (`AS_SEEN` or `AS_PUBLISHED`) to its pixels; a copy of it shares no open file with the
original. It raises UserError where the picture is gone or broken."""


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    name: str
    """For tables."""
    location: str
    """Directory, archive or URL, for people."""
    class_names: tuple[str, ...]
    """Class ids wherever the set has them, else what its folders are called."""
    display_names: tuple[str, ...] = ()
    """What people call the classes, where that is known beside their ids."""
    labels: Labels
    """(n,), numbers into `class_names`."""
    digest: str
    """Which pictures these are: the same wherever they lie."""
    state: str = ""
    """Tells pictures with the same digest apart that may have changed, such as files' times; for caches alone."""
    policy: str = AS_SEEN
    """How files are read: `AS_SEEN`, or `AS_PUBLISHED` for sets whose numbers are compared with published ones."""
    read: Read
    note: str = ""
    """A sentence about files that were left out; "" without any."""

    def __len__(self) -> int:
        return len(self.labels)

    def __copy__(self) -> "ImageSet":
        return replace(self, read=copy.copy(self.read))

    def read_labeled(self, number: int) -> tuple[ReadImage, int]:
        """A picture and its label.

        Raises:
            UserError: the picture is gone or broken.
        """
        return self.read(number, self.policy), int(self.labels[number])

    def decoded(self, number: int) -> tuple[Pixels, int]:
        """`read_labeled` without what is known of the file: RGB pixels (height, width, 3) and label."""
        image, label = self.read_labeled(number)
        return image.pixels, label

    def subset(self, rows: NDArray[np.int64]) -> "ImageSet":
        """Some of the pictures, in the order of their numbers `rows`; classes and labels stay."""
        if np.array_equal(rows, np.arange(len(self))):
            return self
        digest = hashlib.sha256(self.digest.encode() + rows.astype("<i8").tobytes()).hexdigest()
        return replace(self, labels=self.labels[rows], digest=f"sha256:{digest}", read=_ReadRows(self.read, rows))


@dataclass(frozen=True)
class _ReadRows:
    read: Read
    rows: NDArray[np.int64]

    def __call__(self, number: int, policy: str) -> ReadImage:
        return self.read(int(self.rows[number]), policy)

    def __copy__(self) -> "_ReadRows":
        return _ReadRows(copy.copy(self.read), self.rows)


def digest_of(lines: Sequence[str]) -> str:
    """sha256 of a listing."""
    return "sha256:" + hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()
