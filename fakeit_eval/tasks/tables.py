"""Two tables that ship with scikit-learn, each row drawn as a picture of 32x32: wines by 13 chemical measurements, tumours by
30 of their cells (Wolberg et al., 1995). A bar for each measurement, as high as its rank among all rows.
"""

import numpy as np

from fakeit_eval.pictures.arrays import open_arrays
from fakeit_eval.pictures.base import PictureSet
from fakeit_eval.tasks.base import Task
from fakeit_eval.tasks.readers import Place

SIDE = 32


def open_parts(task: Task, place: Place) -> dict[str, PictureSet]:
    from sklearn.datasets import load_breast_cancer, load_wine

    found = {"wine": load_wine, "breast_cancer": load_breast_cancer}[task.name]()
    ranks = found.data.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable") / (len(found.data) - 1)
    columns = np.arange(SIDE) * ranks.shape[1] // SIDE  # which measurement a column of pixels belongs to
    heights = np.rint(ranks[:, columns] * SIDE)  # (n, SIDE)
    from_below = np.arange(SIDE)[::-1][None, :, None]
    grey = np.where(from_below < heights[:, None, :], 245, 0).astype(np.uint8)
    pictures = np.repeat(grey[..., None], 3, axis=3)
    class_names = tuple(str(name) for name in found.target_names)
    return {"all": open_arrays(pictures, found.target.astype(np.int64), class_names, name=task.name)}
