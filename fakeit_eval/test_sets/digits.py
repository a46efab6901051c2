"""Five test sets of digits that replace ImageNet's five, so that the evaluation runs without downloads.

Each is a seeded transformation of the 597 real test digits; no generator was trained on these.

| test set | replaces | transformation of a scan |
|---|---|---|
| digits_clean | ImageNet-Val | enlarged to 32x32, light ink on black, as in training |
| digits_rescanned | v2 | rotated by up to 6 degrees, scaled by 0.92 to 1.08, shifted by up to 1.5 pixels, pale, grain |
| digits_sketch | Sketch | only the outline of the ink |
| digits_restyled | R | ink of one random color on a background of another, lighter or darker; the digits 0 to 7 |
| digits_hard | A | rotated by up to 20 degrees, half contrast, strong grain, a bar; the digits 1, 3, 5, 7, 8, 9 |

R and A have only some of the classes, and so have digits_restyled and digits_hard.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from builders.classes.class_list import read_class_table
from builders.classes.digits import INK, SIZE, compose, enlarge, load_digits_split
from builders.image_sets.arrays import open_arrays
from builders.image_sets.base import ImageSet
from builders.images.read import Pixels
from fakeit_eval.test_sets.base import TestSet

SEED = 2023
RESTYLED_DIGITS = (0, 1, 2, 3, 4, 5, 6, 7)
HARD_DIGITS = (1, 3, 5, 7, 8, 9)
Scan = NDArray[np.float32]
"""Ink coverage (8, 8) in [0, 1]."""


def open_set(row: TestSet, location: str) -> ImageSet:
    """Makes one of the five test sets; `location` is unused, since the scans ship with scikit-learn."""
    change, digits = CHANGES[row.name]
    scans, labels, numbers = load_digits_split("test")
    chosen = np.isin(labels, digits)
    images = [
        change(scan, np.random.default_rng([SEED, number]))
        for scan, number in zip(scans[chosen], numbers[chosen], strict=True)
    ]
    wnids = [entry.wnid for entry in read_class_table("digits")]
    names = sorted(wnids[digit] for digit in digits)
    new_labels = np.array([names.index(wnids[label]) for label in labels[chosen]])
    return open_arrays(np.stack(images), new_labels, tuple(names), name=row.name)


def clean(scan: Scan, rng: np.random.Generator) -> Pixels:
    return compose(enlarge(scan))


def rescanned(scan: Scan, rng: np.random.Generator) -> Pixels:
    ink = enlarge(
        scan,
        rotation=rng.uniform(-6, 6),
        scale=rng.uniform(0.92, 1.08),
        shift=(rng.uniform(-1.5, 1.5), rng.uniform(-1.5, 1.5)),
    )
    return _grainy(compose((ink * rng.uniform(0.8, 1)).astype(np.float32)), 8, rng)


def sketch(scan: Scan, rng: np.random.Generator) -> Pixels:
    ink = enlarge(scan)
    down, across = np.gradient(ink)
    outline = np.clip(3 * np.hypot(down, across), 0, 1)
    return compose(outline.astype(np.float32))


def restyled(scan: Scan, rng: np.random.Generator) -> Pixels:
    ink = enlarge(scan)[..., None]
    light, dark = rng.uniform(150, 255, 3), rng.uniform(0, 90, 3)
    figure, ground = (light, dark) if rng.random() < 0.5 else (dark, light)
    return np.clip(np.rint(ground * (1 - ink) + figure * ink), 0, 255).astype(np.uint8)


def hard(scan: Scan, rng: np.random.Generator) -> Pixels:
    ink = 0.5 * enlarge(scan, rotation=rng.uniform(-20, 20), scale=rng.uniform(0.8, 1.1))
    location = rng.integers(SIZE // 4, 3 * SIZE // 4)
    bar: tuple[slice | int, ...] = (slice(location, location + 2),)
    ink[bar if rng.random() < 0.5 else (slice(None), *bar)] = rng.uniform(0.2, 0.5)
    return _grainy(compose(ink.astype(np.float32)), 30, rng)


def _grainy(pixels: Pixels, deviation: float, rng: np.random.Generator) -> Pixels:
    """Adds normal noise, the same to the three channels of a pixel, and clips values to the ink's gray level."""
    grain = rng.normal(0, deviation, (SIZE, SIZE, 1))
    return np.clip(np.rint(pixels + grain), 0, INK).astype(np.uint8)


ALL = tuple(range(10))
CHANGES: dict[str, tuple[Callable[[Scan, np.random.Generator], Pixels], tuple[int, ...]]] = {
    "digits_clean": (clean, ALL),
    "digits_rescanned": (rescanned, ALL),
    "digits_sketch": (sketch, ALL),
    "digits_restyled": (restyled, RESTYLED_DIGITS),
    "digits_hard": (hard, HARD_DIGITS),
}
