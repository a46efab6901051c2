"""Describable Textures (Cimpoi et al., 2014), partition 1: ROOT/dtd/dtd; train, val and test are given."""

from fakeit_eval.pictures.base import PictureSet
from fakeit_eval.tasks.base import PARTS, Task
from fakeit_eval.tasks.readers import Place, read_splits


def open_parts(task: Task, place: Place) -> dict[str, PictureSet]:
    from torchvision.datasets import DTD

    return read_splits(task.name, place, DTD, PARTS)
