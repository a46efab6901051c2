"""The images that networks see at test time: torchvision's Resize(size, bicubic) and CenterCrop(size), on the Pillow image.

The paper's preprocessing (supplementary, section 2), for validation while training and for evaluation.
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
"""Stands in results and in the keys of stored features; the number changes with the pixels."""
MAX_ASPECT = 4
"""Above it only the part that is seen is resized, for memory: a strip of 1 x 1,000,000 would become 224 x 224,000,000."""


class Images(Protocol):
    """Images with labels, by number. A copy (`copy.copy`) shares no file and no connection with the original."""

    def __len__(self) -> int: ...

    def read_labeled(self, number: int) -> tuple[ReadImage, int]:
        """An image and its label.

        Raises:
            UserError: it cannot be read or decoded.
        """


Batch = tuple["torch.Tensor", "torch.Tensor", int]
"""uint8 (batch, size, size, 3), labels (batch,), and how many files were cut."""


class CroppedBatches:
    """A map-style dataset of whole batches for torch's DataLoader: center crops and labels of a list of image numbers.

    Or what is wrong with one: an exception would come out of a loader's process as a traceback.
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
    """(height, width, 3) resized bicubic so that the shortest side is `size`, cropped in the middle to (size, size, 3)."""
    from torchvision.transforms.functional import InterpolationMode, resize
    from torchvision.transforms.functional import center_crop as crop

    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels)
    if max(height, width) > MAX_ASPECT * min(height, width):
        return np.asarray(_resized_middle(image, size))
    return np.asarray(crop(resize(image, size, InterpolationMode.BICUBIC), [size, size]))


def _resized_middle(image: Image.Image, size: int) -> Image.Image:
    """The same crop, of which only what is seen is resized; it may differ by 2 gray levels."""
    width, height = image.size
    shortest = min(width, height)
    wide, high = int(size * width / shortest), int(size * height / shortest)
    left, top = round((wide - size) / 2), round((high - size) / 2)
    # Pixels of the image for a pixel of the resized one.
    across, down = width / wide, height / high
    box = (left * across, top * down, min((left + size) * across, width), min((top + size) * down, height))
    return image.resize((size, size), Image.Resampling.BICUBIC, box)


def as_it_is(batch: Any) -> Any:
    """For DataLoader's `collate_fn`: batches are whole already."""
    return batch


def start_worker(worker: int) -> None:
    """For DataLoader's `worker_init_fn`: files and connections of the parent are not for a forked child."""
    from torch.utils.data import get_worker_info

    info = get_worker_info()
    assert info is not None
    dataset = info.dataset
    assert isinstance(dataset, CroppedBatches)
    dataset.images = copy.copy(dataset.images)
