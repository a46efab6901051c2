"""Two tables that ship with scikit-learn, with each row drawn as an image of 32x32 pixels.

Their rows are wines with 13 chemical measurements, and tumors with 30 measurements of their cells (Wolberg et al.,
1995). An image has a bar for each measurement, whose height is the rank of the row's value among all rows."""

import numpy as np

from builders.image_sets.annotation_files import DataRoot
from builders.image_sets.arrays import open_arrays
from builders.image_sets.base import ImageSet
from fakeit_eval.tasks.base import Task

SIDE = 32


def open_splits(task: Task, data_root: DataRoot) -> dict[str, ImageSet]:
    from sklearn.datasets import load_breast_cancer, load_wine

    found = {"wine": load_wine, "breast_cancer": load_breast_cancer}[task.name]()
    ranks = found.data.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable") / (len(found.data) - 1)
    # The measurement that each column of pixels belongs to.
    columns = np.arange(SIDE) * ranks.shape[1] // SIDE
    # Bar heights (n, SIDE).
    heights = np.rint(ranks[:, columns] * SIDE)
    from_below = np.arange(SIDE)[::-1][None, :, None]
    gray = np.where(from_below < heights[:, None, :], 245, 0).astype(np.uint8)
    images = np.repeat(gray[..., None], 3, axis=3)
    class_names = tuple(str(name) for name in found.target_names)
    return {"all": open_arrays(images, found.target.astype(np.int64), class_names, name=task.name)}
