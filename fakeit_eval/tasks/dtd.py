"""Describable Textures (Cimpoi et al., 2014), partition 1: ROOT/dtd/dtd; train, val and test are given."""

from fakeit_eval.pictures.base import PictureSet
from fakeit_eval.tasks.base import PARTS, Task
from fakeit_eval.tasks.readers import Place, path_of, read_listed


def open_parts(task: Task, place: Place) -> dict[str, PictureSet]:
    from torchvision.datasets import DTD

    return {
        part: read_listed(
            task.name,
            place,
            lambda part=part: DTD(place.root, part, download=place.download, loader=path_of),  # type: ignore[misc]
        )
        for part in PARTS
    }
