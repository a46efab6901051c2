"""Oxford Flowers 102 (Nilsback and Zisserman, 2008): ROOT/flowers-102; train, val and test are given."""

from fakeit_eval.pictures.base import PictureSet
from fakeit_eval.tasks.base import PARTS, Task
from fakeit_eval.tasks.readers import Place, path_of, read_listed


def open_parts(task: Task, place: Place) -> dict[str, PictureSet]:
    from torchvision.datasets import Flowers102

    return {
        part: read_listed(
            task.name,
            place,
            lambda part=part: Flowers102(place.root, part, download=place.download, loader=path_of),  # type: ignore[misc]
        )
        for part in PARTS
    }
