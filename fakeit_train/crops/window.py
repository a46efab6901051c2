"""The window of a crop in its image: samples it, and resizes it to the crop's size."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from fakeit_train.crops.random_values import RandomValues

Pixels = NDArray[np.uint8]
"""(height, width, 3), RGB."""
Window = tuple[int, int, int, int]
"""left, top, width, height in pixels of the image."""


def sample_window(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], values: RandomValues
) -> Window:
    """Samples a window with random area and aspect ratio (Inception crop).

    If none of ten attempts fits into the image, the window is centered.
    """
    for _ in range(10):
        area = height * width * values.uniform(*scale)
        aspect = math.exp(values.uniform(math.log(ratio[0]), math.log(ratio[1])))
        wide, high = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < high <= height:
            left, top = values.integer(width - wide + 1), values.integer(height - high + 1)
            return left, top, wide, high
    wide, high = min(width, round(height * ratio[1])), min(height, round(width / ratio[0]))
    return (width - wide) // 2, (height - high) // 2, wide, high


def resize(image: Pixels, left: int, top: int, wide: int, high: int, size: int) -> Pixels:
    """Resizes a window of an image to (size, size, 3): bicubic with antialiasing, within one level of Pillow's result.

    OpenCV has no such filter. All strides of the window's view are channels-last, also that of the batch dimension of
    length 1, so torch returns a channels-last result.
    """
    height, width, _ = image.shape
    strides, start = (3 * height * width, 1, 3 * width, 3), 3 * (top * width + left)
    window = torch.from_numpy(np.ascontiguousarray(image)).as_strided((1, 3, high, wide), strides, start)
    resized = F.interpolate(window, (size, size), mode="bicubic", antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())
