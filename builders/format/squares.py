"""Pictures as networks see them at test time: bicubic to the input size on the shortest side, then the middle square.

The paper's preprocessing (supplementary, section 2), for validation while training and for evaluation.
"""

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from builders.format.errors import UserError
from builders.format.images import decode_sample
from builders.format.open_clone import Clone

Squares = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""(batch, size, size, 3) and the clone's labels (batch,)."""


class SquareBatches:
    """A map-style dataset of whole batches for torch's DataLoader: squares and labels of a list of sample numbers.

    Or what is wrong with one: an exception would come out of a loader's process as a traceback.
    """

    def __init__(self, clone: Clone, size: int) -> None:
        self.clone, self.size = clone, size

    def __len__(self) -> int:
        return len(self.clone)

    def __getitems__(self, numbers: list[int]) -> Squares | UserError:
        try:
            samples = [self.clone.view(number) for number in numbers]
            squares = [middle_square(decode_sample(s.key, s.picture), self.size) for s in samples]
        except UserError as error:
            return error
        return np.stack(squares), np.array([sample.label for sample in samples])


def middle_square(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(height, width, 3) resized bicubic so that the shortest side is `size`, cropped in the middle to (size, size, 3)."""
    height, width = picture.shape[:2]
    scale = size / min(height, width)
    wide, high = max(size, round(width * scale)), max(size, round(height * scale))
    resized = Image.fromarray(picture).resize((wide, high), Image.Resampling.BICUBIC)
    left, top = (wide - size) // 2, (high - size) // 2
    return np.asarray(resized.crop((left, top, left + size, top + size)))


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
    dataset.clone = copy.copy(dataset.clone)
