"""Real handwritten digits: scikit-learn's bundled `load_digits` (1,797 scans of 8x8, 17 gray levels) as 32x32 images.

The splits are fixed. The 597 rows in `digits_test_rows.txt` are the test split, which no generator ever sees. The other
1,200 rows, 120 of each class, are for training.
"""

from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = 32
INK = 245.0


def load_digits_split(split: str) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Returns ink coverage (n, 8, 8) in [0, 1], labels (n,) and row numbers (n,) of the `train` or the `test` split."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    rows = (files("builders.classes") / "digits_test_rows.txt").read_text(encoding="utf-8").split()
    is_test = np.zeros(len(digits.target), dtype=bool)
    is_test[[int(row) for row in rows]] = True
    chosen = np.flatnonzero(is_test if split == "test" else ~is_test)
    return (digits.images[chosen] / 16).astype(np.float32), digits.target[chosen].astype(np.int64), chosen


def enlarge(
    ink: NDArray[np.float32], *, rotation: float = 0.0, scale: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)
) -> NDArray[np.float32]:
    """Enlarges one scan (8, 8), with a margin of one of its pixels, to (32, 32) by bicubic interpolation.

    The result may be rotated (in degrees), scaled, and shifted (in pixels of the enlarged scan).
    """
    image = Image.fromarray(np.pad(ink, 1)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    if rotation or scale != 1.0 or shift != (0.0, 0.0):
        cos, sin = np.cos(np.deg2rad(rotation)) / scale, np.sin(np.deg2rad(rotation)) / scale
        center = (SIZE - 1) / 2
        x0, y0 = center + shift[0], center + shift[1]
        matrix = (cos, sin, center - cos * x0 - sin * y0, -sin, cos, center + sin * x0 - cos * y0)
        image = image.transform((SIZE, SIZE), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return np.clip(np.asarray(image), 0.0, 1.0)


def compose(ink: NDArray[np.float32], backdrop: NDArray[np.float32] | None = None) -> NDArray[np.uint8]:
    """Makes an image (32, 32, 3): light ink (32, 32) on black, or on a backdrop (32, 32, 3) with values 0 to 255."""
    behind = np.zeros((SIZE, SIZE, 3), np.float32) if backdrop is None else backdrop
    alpha = ink[..., None]
    return np.clip(np.rint(behind * (1 - alpha) + INK * alpha), 0, 255).astype(np.uint8)
