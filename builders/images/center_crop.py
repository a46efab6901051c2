"""The image preprocessing at test time: torchvision's Resize(size, bicubic) and CenterCrop(size), on Pillow images.

It is the paper's preprocessing (supplementary, section 2), for validation while training and for evaluation.
"""

import numpy as np
from PIL import Image

from builders.images.read import Pixels

PREPROCESSING = "torchvision Resize (bicubic) and CenterCrop, 2"
"""Version of the preprocessing in results and in the keys of stored features; the number changes with the pixels."""
MAX_ASPECT = 4
"""Aspect ratio above which only the visible region is resized, for memory.

A strip of 1 x 1,000,000 would become 224 x 224,000,000.
"""


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
