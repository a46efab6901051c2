"""SUN397 (Xiao et al., 2010): ROOT/SUN397, with the first published partition (Training_01.txt, Testing_01.txt) in it, in
ROOT/SUN397/Partitions or in ROOT/Partitions; val is drawn from train.

torchvision downloads the pictures and lists the classes; the partition's files come from the data set's page.
"""

from pathlib import Path

import numpy as np

from builders.format.errors import UserError
from fakeit_eval.pictures.base import PictureSet
from fakeit_eval.pictures.files import open_files
from fakeit_eval.tasks.base import Task
from fakeit_eval.tasks.readers import Place, guarded

LISTS = {"train": "Training_01.txt", "test": "Testing_01.txt"}


def open_parts(task: Task, place: Place) -> dict[str, PictureSet]:
    from torchvision.datasets import SUN397

    reader = guarded(task.name, place, lambda: SUN397(place.root, download=place.download))
    folder = Path(place.root) / "SUN397"
    return {part: _listed(task, place, folder, name, dict(reader.class_to_idx)) for part, name in LISTS.items()}


def _listed(task: Task, place: Place, folder: Path, name: str, numbers: dict[str, int]) -> PictureSet:
    """The files that a list names, such as "/a/abbey/sun_aaalbzqrimafwbiv.jpg"; the class is all between letter and file."""
    path = next(
        (p / name for p in (folder, folder / "Partitions", folder.parent / "Partitions") if (p / name).is_file()), None
    )
    if path is None:
        raise UserError(
            f"'{task.name}' needs its partition, but '{folder / name}' is missing; put Partitions.zip's files there"
        )
    lines = guarded(task.name, place, lambda: path.read_text(encoding="utf-8").split())
    classes = ["/".join(line.strip("/").split("/")[1:-1]) for line in lines]
    unknown = next((found for found in classes if found not in numbers), None)
    if unknown is not None:
        raise UserError(
            f"'{path}' names class '{unknown}', which ClassName.txt does not; put the published files there"
        )
    labels = np.array([numbers[found] for found in classes], dtype=np.int64)
    paths = [str(folder / line.strip("/")) for line in lines]
    return open_files(paths, labels, tuple(numbers), root=place.root, name=task.name)
