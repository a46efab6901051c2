"""FGVC-Aircraft, its 100 variants (Maji et al., 2013): ROOT/fgvc-aircraft-2013b; train, val and test are given."""

from fakeit_eval.pictures.base import PictureSet
from fakeit_eval.tasks.base import PARTS, Task
from fakeit_eval.tasks.readers import Place, read_splits


def open_parts(task: Task, place: Place) -> dict[str, PictureSet]:
    from torchvision.datasets import FGVCAircraft

    return read_splits(task.name, place, FGVCAircraft, PARTS)
