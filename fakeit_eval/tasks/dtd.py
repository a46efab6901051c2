"""Describable Textures (Cimpoi et al., 2014), partition 1: ROOT/dtd/dtd; train, val and test are published."""

from builders.image_sets.annotation_files import DataRoot, read_splits
from builders.image_sets.base import ImageSet
from fakeit_eval.tasks.base import SPLITS, Task


def open_splits(task: Task, data_root: DataRoot) -> dict[str, ImageSet]:
    from torchvision.datasets import DTD

    return read_splits(task.name, data_root, DTD, SPLITS)
