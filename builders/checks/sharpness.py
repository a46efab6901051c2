"""Scores an image by the variance of the Laplacian of its gray levels (0 to 255): low for blurred and blank images.

--check sharpness:50
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from builders.checks.base import Score

TAKES_MODEL = False


def load(model: str, revision: str) -> Score:
    return lambda images, samples: [sharpness(image) for image in images]


def sharpness(image: NDArray[np.uint8]) -> float:
    """Returns the variance of the Laplacian, four neighbors minus four times the pixel, within an image (h, w, 3)."""
    gray = np.asarray(Image.fromarray(image).convert("L"), np.float64)
    inner = gray[1:-1, 1:-1]
    return float((gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:] - 4 * inner).var())
