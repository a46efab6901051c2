"""Stanford Cars (Krause et al., 2013): ROOT/stanford_cars; val is drawn from train. Nobody serves it for download any more."""

from fakeit_eval.pictures.base import PictureSet
from fakeit_eval.tasks.base import Task
from fakeit_eval.tasks.readers import Place, read_splits


def open_parts(task: Task, place: Place) -> dict[str, PictureSet]:
    from torchvision.datasets import StanfordCars

    return read_splits(task.name, place, StanfordCars, ("train", "test"))
