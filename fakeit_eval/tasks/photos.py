"""Patches of the two photographs that ship with scikit-learn, a temple in China and a flower.

A patch's class is the block that it is from. Each photograph, 427x640 pixels, is divided into six blocks, which makes
12 classes. Each block is divided into patches of 32x32 pixels that do not overlap."""

import numpy as np

from builders.image_sets.annotation_files import DataRoot
from builders.image_sets.arrays import open_arrays
from builders.image_sets.base import ImageSet
from fakeit_eval.tasks.base import Task

SIDE = 32
BLOCKS = (2, 3)
"""Blocks of a photograph, down and across."""


def open_splits(task: Task, data_root: DataRoot) -> dict[str, ImageSet]:
    from sklearn.datasets import load_sample_images

    found = load_sample_images()
    patches, names = [], []
    for path, photograph in zip(found.filenames, found.images, strict=True):
        title = path.replace("\\", "/").rpartition("/")[2].partition(".")[0]
        height, width = (size // count for size, count in zip(photograph.shape, BLOCKS, strict=False))
        for down in range(BLOCKS[0]):
            for across in range(BLOCKS[1]):
                block = photograph[down * height : (down + 1) * height, across * width : (across + 1) * width]
                some = _patches(block)
                patches += some
                names += [f"{title}-{down}-{across}"] * len(some)
    class_names = tuple(sorted(set(names)))
    labels = np.array([class_names.index(name) for name in names])
    return {"all": open_arrays(np.stack(patches), labels, class_names, name=task.name)}


def _patches(block: np.ndarray) -> list[np.ndarray]:  # type: ignore[type-arg]
    height, width = block.shape[:2]
    return [
        block[top : top + SIDE, left : left + SIDE]
        for top in range(0, height - SIDE + 1, SIDE)
        for left in range(0, width - SIDE + 1, SIDE)
    ]
