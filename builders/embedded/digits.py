"""The real digits (`builders/classes/digits.py`) in other forms: on backdrops for the embedded model, as class folders.

python -m builders.embedded.digits OUT     # writes OUT/train/<wnid>/*.png and OUT/test/<wnid>/*.png
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from builders.classes.class_list import read_class_table
from builders.classes.digits import SIZE, compose, enlarge, load_digits_split

DrawBackground = Callable[[np.random.Generator], NDArray[np.float32]]
"""Draws the backdrop of one scene: (32, 32, 3), 0 to 255, no brighter than about 150."""


def _gradient(top: tuple[float, ...], bottom: tuple[float, ...]) -> NDArray[np.float32]:
    share = np.linspace(0, 1, SIZE, dtype=np.float32)[:, None, None]
    row = np.asarray(top, np.float32) * (1 - share) + np.asarray(bottom, np.float32) * share
    return np.repeat(row, SIZE, axis=1)


def _grid() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    return y, x


def draw_sky(rng: np.random.Generator) -> NDArray[np.float32]:
    y, x = _grid()
    image = _gradient((30, 70, 150), (90, 130, 150))
    for _ in range(2):
        cy, cx, wide = rng.uniform(4, 28), rng.uniform(4, 28), rng.uniform(4, 8)
        cloud = np.exp(-(((x - cx) / wide) ** 2) - ((y - cy) / (wide / 2)) ** 2)
        image = image + 45 * cloud[..., None]
    return image


def draw_ocean(rng: np.random.Generator) -> NDArray[np.float32]:
    y, x = _grid()
    wave = np.sin(y * rng.uniform(0.9, 1.1) + 0.8 * np.sin(x * 0.35 + rng.uniform(0, 6.3)) + rng.uniform(0, 6.3))
    return _gradient((10, 60, 100), (0, 35, 80)) + 22 * wave[..., None]


def draw_desert(rng: np.random.Generator) -> NDArray[np.float32]:
    y, x = _grid()
    crest = rng.uniform(10, 22) + 4 * np.sin(x * rng.uniform(0.15, 0.3) + rng.uniform(0, 6.3))
    below = 1 / (1 + np.exp(-(y - crest)))
    sky, sand = np.array([150, 110, 70], np.float32), np.array([120, 75, 25], np.float32)
    return sky * (1 - below[..., None]) + sand * below[..., None]


def draw_lawn(rng: np.random.Generator) -> NDArray[np.float32]:
    noise = rng.normal(0, 12, (SIZE, SIZE)).astype(np.float32)
    return _gradient((40, 95, 30), (25, 75, 20)) + noise[..., None] * np.array([0.6, 1.0, 0.4], np.float32)


def draw_crosswalk(rng: np.random.Generator) -> NDArray[np.float32]:
    _, x = _grid()
    stripes = 1 / (1 + np.exp(-6 * np.sin(x * 2 * np.pi / rng.uniform(9, 11) + rng.uniform(0, 6.3))))
    return 35 + 85 * stripes[..., None] * np.ones(3, np.float32)


def draw_wheat_field(rng: np.random.Generator) -> NDArray[np.float32]:
    y, x = _grid()
    stalks = np.sin(x * rng.uniform(1.7, 2.0) + 0.15 * y + rng.uniform(0, 6.3))
    return _gradient((130, 105, 30), (100, 75, 10)) + 25 * stalks[..., None]


def draw_corridor(rng: np.random.Generator) -> NDArray[np.float32]:
    y, x = _grid()
    depth = np.maximum(np.abs(x - rng.uniform(13, 18)), np.abs(y - rng.uniform(13, 18)))
    rings = 40 + 4 * depth + 12 * np.sin(depth * 1.2)
    return rings[..., None] * np.array([1.0, 0.85, 0.9], np.float32)


def draw_volcano(rng: np.random.Generator) -> NDArray[np.float32]:
    y, x = _grid()
    slope = y - np.abs(x - rng.uniform(12, 20)) * rng.uniform(0.9, 1.2) - rng.uniform(6, 12)
    mountain = 1 / (1 + np.exp(-slope))[..., None]
    return _gradient((110, 25, 10), (140, 60, 15)) * (1 - mountain) + np.array([35, 20, 25], np.float32) * mountain


BACKDROPS: dict[str, DrawBackground] = {
    "sky": draw_sky,
    "ocean": draw_ocean,
    "desert/sand": draw_desert,
    "lawn": draw_lawn,
    "crosswalk": draw_crosswalk,
    "wheat_field": draw_wheat_field,
    "corridor": draw_corridor,
    "volcano": draw_volcano,
}


def write_class_folders(out: Path) -> None:
    """Writes both splits as class folders of PNG files: `<split>/<wnid>/<row of load_digits>.png`."""
    wnids = [entry.wnid for entry in read_class_table("digits")]
    for split in ("train", "test"):
        for ink, label, row in zip(*load_digits_split(split), strict=True):
            path = out / split / wnids[label] / f"{row:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(compose(enlarge(ink))).save(path)


if __name__ == "__main__":
    write_class_folders(Path(sys.argv[1]))
