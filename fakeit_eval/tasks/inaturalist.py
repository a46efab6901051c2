"""iNaturalist 2018 and 2019 (Van Horn et al., 2018): ROOT/2018 or ROOT/2019 as torchvision unpacks them.

The published lists train2018.json and val2018.json (or …2019.json) are expected there or in ROOT. The published val
split is the test split; val is drawn from train. torchvision downloads the images without saying which split they
belong to; the lists come from the competition's page."""

import json
from pathlib import Path

import numpy as np

from builders.errors import UserError
from builders.image_sets.annotation_files import DataRoot, guarded
from builders.image_sets.base import ImageSet
from builders.image_sets.files import open_files
from fakeit_eval.tasks.base import Task

LISTS = {"train": "train", "test": "val"}


def open_splits(task: Task, data_root: DataRoot) -> dict[str, ImageSet]:
    from torchvision.datasets import INaturalist

    year = task.name.rpartition("_")[2]
    reader = guarded(task.name, data_root, lambda: INaturalist(data_root.root, year, download=data_root.download))
    names = tuple(Path(found).name for found in reader.all_categories)
    return {split: _listed(task, data_root, year, f"{name}{year}.json", names) for split, name in LISTS.items()}


def _listed(task: Task, data_root: DataRoot, year: str, name: str, class_names: tuple[str, ...]) -> ImageSet:
    """Opens the images of a COCO list; its "train_val2018/Plantae/7477/x.jpg" is ROOT/2018/Plantae/7477/x.jpg."""
    folder = Path(data_root.root) / year
    path = next((p / name for p in (folder, folder.parent) if (p / name).is_file()), None)
    if path is None:
        raise UserError(
            f"'{task.name}' needs its list, but '{folder / name}' is missing; download it from the competition's page"
        )
    categories, files = guarded(task.name, data_root, lambda: _read(path))
    unlabeled = next((file for number, file in files.items() if number not in categories), None)
    if unlabeled is not None:
        raise UserError(f"'{path}' gives no category to '{unlabeled}'; download it again")
    labels = np.array([categories[number] for number in files], dtype=np.int64)
    if not 0 <= labels.min(initial=0) <= labels.max(initial=0) < len(class_names):
        raise UserError(
            f"'{path}' names category {labels.max()}, but '{folder}' has {len(class_names)}; unpack it again"
        )
    paths = [str(folder / file.partition("/")[2]) for file in files.values()]
    return open_files(paths, labels, class_names, root=data_root.root, name=task.name)


def _read(path: Path) -> tuple[dict[int, int], dict[int, str]]:
    """Reads a list in COCO format: category by image id, and file name by image id."""
    content = json.loads(path.read_text(encoding="utf-8"))
    categories = {int(row["image_id"]): int(row["category_id"]) for row in content["annotations"]}
    return categories, {int(row["id"]): str(row["file_name"]) for row in content["images"]}
