"""Stanford Cars (Krause et al., 2013): ROOT/stanford_cars; val is drawn from train.

The dataset is no longer available for download.
"""

from builders.image_sets.annotation_files import DataRoot, read_splits
from builders.image_sets.base import ImageSet
from fakeit_eval.tasks.base import Task


def open_splits(task: Task, data_root: DataRoot) -> dict[str, ImageSet]:
    from torchvision.datasets import StanfordCars

    return read_splits(task.name, data_root, StanfordCars, ("train", "test"))
