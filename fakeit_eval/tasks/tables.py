"""Two tables that ship with scikit-learn, each row drawn as a picture of 32x32: wines by 13 chemical measurements, tumours by
30 of their cells (Wolberg et al., 1995). A bar for each measurement, as high as its rank among all rows.
"""

import numpy as np

from fakeit_eval.image_sets.annotation_files import DataRoot
from fakeit_eval.image_sets.arrays import open_arrays
from fakeit_eval.image_sets.base import ImageSet
from fakeit_eval.tasks.base import Task

SIDE = 32


def open_splits(task: Task, data_root: DataRoot) -> dict[str, ImageSet]:
    from sklearn.datasets import load_breast_cancer, load_wine

    found = {"wine": load_wine, "breast_cancer": load_breast_cancer}[task.name]()
    ranks = found.data.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable") / (len(found.data) - 1)
    columns = np.arange(SIDE) * ranks.shape[1] // SIDE  # which measurement a column of pixels belongs to
    heights = np.rint(ranks[:, columns] * SIDE)  # (n, SIDE)
    from_below = np.arange(SIDE)[::-1][None, :, None]
    gray = np.where(from_below < heights[:, None, :], 245, 0).astype(np.uint8)
    images = np.repeat(gray[..., None], 3, axis=3)
    class_names = tuple(str(name) for name in found.target_names)
    return {"all": open_arrays(images, found.target.astype(np.int64), class_names, name=task.name)}
