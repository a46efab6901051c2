"""Oxford Flowers 102 (Nilsback and Zisserman, 2008): ROOT/flowers-102; train, val and test are given."""

from fakeit_eval.pictures.base import PictureSet
from fakeit_eval.tasks.base import PARTS, Task
from fakeit_eval.tasks.readers import Place, read_splits


def open_parts(task: Task, place: Place) -> dict[str, PictureSet]:
    from torchvision.datasets import Flowers102

    return read_splits(task.name, place, Flowers102, PARTS)
