"""Food-101 (Bossard et al., 2014): ROOT/food-101; val is drawn from train."""

from fakeit_eval.pictures.base import PictureSet
from fakeit_eval.tasks.base import Task
from fakeit_eval.tasks.readers import Place, read_splits


def open_parts(task: Task, place: Place) -> dict[str, PictureSet]:
    from torchvision.datasets import Food101

    return read_splits(task.name, place, Food101, ("train", "test"))
