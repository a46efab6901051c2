"""Stanford Cars (Krause et al., 2013): ROOT/stanford_cars; val is drawn from train. Nobody serves it for download any more."""

from fakeit_eval.pictures.base import PictureSet
from fakeit_eval.tasks.base import Task
from fakeit_eval.tasks.readers import Place, path_of, read_listed


def open_parts(task: Task, place: Place) -> dict[str, PictureSet]:
    from torchvision.datasets import StanfordCars

    return {
        part: read_listed(
            task.name,
            place,
            lambda part=part: StanfordCars(place.root, part, download=place.download, loader=path_of),  # type: ignore[misc]
        )
        for part in ("train", "test")
    }
