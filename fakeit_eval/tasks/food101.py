"""Food-101 (Bossard et al., 2014): ROOT/food-101; val is drawn from train."""

from builders.image_sets.annotation_files import DataRoot, read_splits
from builders.image_sets.base import ImageSet
from fakeit_eval.tasks.base import Task


def open_splits(task: Task, data_root: DataRoot) -> dict[str, ImageSet]:
    from torchvision.datasets import Food101

    return read_splits(task.name, data_root, Food101, ("train", "test"))
