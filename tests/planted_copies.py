"""Copies of images as a generator or a download might make them."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from builders.images.read import Pixels


def planted_copies(images: Sequence[Pixels]) -> dict[str, NDArray[np.uint8]]:
    """Returns ten copies of each kind (10, height, width, 3) of forty images."""
    return {
        "exact": np.stack(images[:10]),
        "JPEG 75": np.stack([_compressed(pixels) for pixels in images[10:20]]),
        "shifted by a pixel": np.stack([np.roll(pixels, 1, axis=1) for pixels in images[20:30]]),
        "turned by 5° and brightened": np.stack([_turned(pixels) for pixels in images[30:40]]),
    }


def _compressed(pixels: Pixels) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=75)
    return np.asarray(Image.open(file))


def _turned(pixels: Pixels) -> Pixels:
    image = Image.fromarray(pixels).rotate(5, Image.Resampling.BICUBIC)
    return np.asarray(ImageEnhance.Brightness(image).enhance(1.2))
