"""Food-101 (Bossard et al., 2014): ROOT/food-101; val is drawn from train."""

from fakeit_eval.pictures.base import PictureSet
from fakeit_eval.tasks.base import Task
from fakeit_eval.tasks.readers import Place, path_of, read_listed


def open_parts(task: Task, place: Place) -> dict[str, PictureSet]:
    from torchvision.datasets import Food101

    return {
        part: read_listed(
            task.name,
            place,
            lambda part=part: Food101(place.root, part, download=place.download, loader=path_of),  # type: ignore[misc]
        )
        for part in ("train", "test")
    }
