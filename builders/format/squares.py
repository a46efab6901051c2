"""Pictures as networks see them at test time: bicubic to the input size on the shortest side, then the middle square.

The paper's preprocessing (supplementary, section 2), for validation while training and for evaluation.
"""

import copy
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from builders.format.errors import UserError

Squares = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""(batch, size, size, 3) and the clone's labels (batch,)."""


class Pictures(Protocol):
    """Pictures with labels, by number. A copy (`copy.copy`) shares no file and no connection with the original."""

    def __len__(self) -> int: ...

    def decoded(self, number: int) -> tuple[NDArray[np.uint8], int]:
        """RGB pixels (height, width, 3) and label.

        Raises:
            UserError: it cannot be read or decoded.
        """


class SquareBatches:
    """A map-style dataset of whole batches for torch's DataLoader: squares and labels of a list of sample numbers.

    Or what is wrong with one: an exception would come out of a loader's process as a traceback.
    """

    def __init__(self, pictures: Pictures, size: int) -> None:
        self.pictures, self.size = pictures, size

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitems__(self, numbers: list[int]) -> Squares | UserError:
        try:
            found = [self.pictures.decoded(number) for number in numbers]
        except UserError as error:
            return error
        squares = [middle_square(pixels, self.size) for pixels, _ in found]
        return np.stack(squares), np.array([label for _, label in found])


def middle_square(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(height, width, 3) resized bicubic so that the shortest side is `size`, cropped in the middle to (size, size, 3).

    Only the middle is resized: a long strip would take memory without end.
    """
    height, width = picture.shape[:2]
    scale = size / min(height, width)
    wide, high = max(size, round(width * scale)), max(size, round(height * scale))
    left, top = (wide - size) // 2, (high - size) // 2
    across, down = width / wide, height / high  # of the picture, for a pixel of the resized one
    box = (left * across, top * down, min((left + size) * across, width), min((top + size) * down, height))
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC, box))


def as_it_is(batch: Any) -> Any:
    """For DataLoader's `collate_fn`: batches are whole already."""
    return batch


def start_worker(worker: int) -> None:
    """For DataLoader's `worker_init_fn`: files and connections of the parent are not for a forked child."""
    from torch.utils.data import get_worker_info

    info = get_worker_info()
    assert info is not None
    dataset = info.dataset
    assert isinstance(dataset, SquareBatches)
    dataset.pictures = copy.copy(dataset.pictures)
