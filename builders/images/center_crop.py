"""The image preprocessing at test time: torchvision's Resize(size, bicubic) and CenterCrop(size), on Pillow images.

It is the paper's preprocessing (supplementary, section 2), for validation while training and for evaluation.
"""

import copy
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from builders.errors import UserError
from builders.images.read import Pixels, ReadImage

if TYPE_CHECKING:
    import torch

PREPROCESSING = "torchvision Resize (bicubic) and CenterCrop, 2"
"""Version of the preprocessing in results and in the keys of stored features; the number changes with the pixels."""
MAX_ASPECT = 4
"""Aspect ratio above which only the visible region is resized, for memory.

A strip of 1 x 1,000,000 would become 224 x 224,000,000.
"""


class Images(Protocol):
    """Numbered images with labels. A copy (`copy.copy`) shares no file and no connection with the original."""

    def __len__(self) -> int: ...

    def read_labeled(self, number: int) -> tuple[ReadImage, int]:
        """Returns an image and its label.

        Raises:
            UserError: the image cannot be read or decoded.
        """


Batch = tuple["torch.Tensor", "torch.Tensor", int]
"""uint8 (batch, size, size, 3), labels (batch,), and the number of files that were cut short."""


class CroppedBatches:
    """A map-style dataset of whole batches for torch's DataLoader: center crops and labels for a list of image numbers.

    If an image cannot be read, the error is returned instead: raised in a worker, it would reach users as a traceback.
    """

    def __init__(self, images: Images, size: int) -> None:
        self.images, self.size = images, size

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, numbers: list[int]) -> Batch | UserError:
        import torch

        try:
            found = [self.images.read_labeled(number) for number in numbers]
        except UserError as error:
            return error
        crops = np.stack([center_crop(image.pixels, self.size) for image, _ in found])
        labels = torch.tensor([label for _, label in found])
        return torch.from_numpy(crops), labels, sum(image.is_cut for image, _ in found)


def center_crop(pixels: Pixels, size: int) -> Pixels:
    """Resizes (height, width, 3) bicubically to a shortest side of `size`, and crops the middle to (size, size, 3)."""
    from torchvision.transforms.functional import InterpolationMode, resize
    from torchvision.transforms.functional import center_crop as crop

    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels)
    if max(height, width) > MAX_ASPECT * min(height, width):
        return np.asarray(_resized_middle(image, size))
    return np.asarray(crop(resize(image, size, InterpolationMode.BICUBIC), [size, size]))


def _resized_middle(image: Image.Image, size: int) -> Image.Image:
    """Returns the same crop, but resizes only the visible region; the result may differ by 2 gray levels."""
    width, height = image.size
    shortest = min(width, height)
    wide, high = int(size * width / shortest), int(size * height / shortest)
    left, top = round((wide - size) / 2), round((high - size) / 2)
    # Pixels of the image per pixel of the resized image.
    across, down = width / wide, height / high
    box = (left * across, top * down, min((left + size) * across, width), min((top + size) * down, height))
    return image.resize((size, size), Image.Resampling.BICUBIC, box)


def as_it_is(batch: Any) -> Any:
    """Returns the batch itself, as DataLoader's `collate_fn`: batches are already complete."""
    return batch


def start_worker(worker: int) -> None:
    """Copies the dataset's images, as DataLoader's `worker_init_fn`.

    A forked worker must not use the files and connections of its parent.
    """
    from torch.utils.data import get_worker_info

    info = get_worker_info()
    assert info is not None
    dataset = info.dataset
    assert isinstance(dataset, CroppedBatches)
    dataset.images = copy.copy(dataset.images)
