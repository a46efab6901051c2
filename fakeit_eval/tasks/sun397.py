"""SUN397 (Xiao et al., 2010): ROOT/SUN397, with the first published partition; val is drawn from train.

The partition's files, Training_01.txt and Testing_01.txt, are expected in ROOT/SUN397, ROOT/SUN397/Partitions or
ROOT/Partitions. torchvision downloads the images and lists the classes; the partition's files come from the dataset's
page."""

from pathlib import Path

import numpy as np

from builders.errors import UserError
from builders.image_sets.annotation_files import DataRoot, guarded
from builders.image_sets.base import ImageSet
from builders.image_sets.files import open_files
from fakeit_eval.tasks.base import Task

LISTS = {"train": "Training_01.txt", "test": "Testing_01.txt"}


def open_splits(task: Task, data_root: DataRoot) -> dict[str, ImageSet]:
    from torchvision.datasets import SUN397

    reader = guarded(task.name, data_root, lambda: SUN397(data_root.root, download=data_root.download))
    folder = Path(data_root.root) / "SUN397"
    return {split: _listed(task, data_root, folder, name, dict(reader.class_to_idx)) for split, name in LISTS.items()}


def _listed(task: Task, data_root: DataRoot, folder: Path, name: str, numbers: dict[str, int]) -> ImageSet:
    """Opens the files of a list. In "/a/abbey/sun_aaalbzqrimafwbiv.jpg" the class is "abbey"; it may have slashes."""
    path = next(
        (p / name for p in (folder, folder / "Partitions", folder.parent / "Partitions") if (p / name).is_file()), None
    )
    if path is None:
        raise UserError(
            f"'{task.name}' needs its partition, but '{folder / name}' is missing; put Partitions.zip's files there"
        )
    lines = guarded(task.name, data_root, lambda: path.read_text(encoding="utf-8").split())
    classes = ["/".join(line.strip("/").split("/")[1:-1]) for line in lines]
    unknown = next((found for found in classes if found not in numbers), None)
    if unknown is not None:
        raise UserError(
            f"'{path}' names class '{unknown}', which ClassName.txt does not have; put the published files there"
        )
    labels = np.array([numbers[found] for found in classes], dtype=np.int64)
    paths = [str(folder / line.strip("/")) for line in lines]
    return open_files(paths, labels, tuple(numbers), root=data_root.root, name=task.name)
