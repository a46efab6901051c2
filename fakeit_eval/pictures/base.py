"""A set of labelled pictures, wherever it lies: what tasks hand to feature extraction.

Each module of this folder makes one: from class folders, archives, clones, the Hub, or arrays.
"""

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

PREPROCESSING = "bicubic to the shortest side, middle square, 1"
"""What every picture goes through (`squares.middle_square`); the number changes with its pixels."""
Labels = NDArray[np.int64]
Pixels = NDArray[np.uint8]
"""(height, width, 3), RGB."""
Read = Callable[[int], Pixels]
"""From a picture's number to its pixels; a copy of it shares no open file with the original."""


@dataclass(frozen=True, kw_only=True)
class PictureSet:
    name: str
    """For tables."""
    place: str
    """Directory, archive or URL, for people."""
    class_names: tuple[str, ...]
    """Wnids wherever the set has them."""
    labels: Labels
    """(n,), numbers into `class_names`."""
    digest: str
    """Which pictures these are: the same wherever they lie."""
    state: str = ""
    """Tells pictures with the same digest apart that may have changed, such as files' times; for caches alone."""
    read: Read

    def __len__(self) -> int:
        return len(self.labels)

    def __copy__(self) -> "PictureSet":
        return replace(self, read=copy.copy(self.read))

    def decoded(self, number: int) -> tuple[Pixels, int]:
        """RGB pixels (height, width, 3) and label.

        Raises:
            UserError: the picture is gone or broken.
        """
        return self.read(number), int(self.labels[number])

    def subset(self, rows: NDArray[np.int64]) -> "PictureSet":
        """Some of the pictures, in the order of their numbers `rows`; classes and labels stay."""
        if np.array_equal(rows, np.arange(len(self))):
            return self
        digest = hashlib.sha256(self.digest.encode() + rows.astype("<i8").tobytes()).hexdigest()
        return replace(self, labels=self.labels[rows], digest=f"sha256:{digest}", read=_ReadRows(self.read, rows))


@dataclass(frozen=True)
class _ReadRows:
    read: Read
    rows: NDArray[np.int64]

    def __call__(self, number: int) -> Pixels:
        return self.read(int(self.rows[number]))

    def __copy__(self) -> "_ReadRows":
        return _ReadRows(copy.copy(self.read), self.rows)


def digest_of(lines: Sequence[str]) -> str:
    """sha256 of a listing."""
    return "sha256:" + hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def is_picture(name: str) -> bool:
    """Whether a file's name is one of a picture; hidden files are none."""
    base = name.rpartition("/")[2]
    return base[:1] != "." and base.lower().endswith(EXTENSIONS)


EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm")
