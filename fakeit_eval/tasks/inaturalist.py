"""iNaturalist 2018 and 2019 (Van Horn et al., 2018): ROOT/2018 or ROOT/2019 as torchvision unpacks them, with the published
lists train2018.json and val2018.json (or …2019.json) there or in ROOT. Their val part is what is tested on.

torchvision downloads the pictures (of both parts, unlabelled which is which); the lists come from the competition's page.
"""

import json
from pathlib import Path

import numpy as np

from builders.format.errors import UserError
from fakeit_eval.pictures.base import PictureSet
from fakeit_eval.pictures.files import open_files
from fakeit_eval.tasks.base import Task
from fakeit_eval.tasks.readers import Place, guarded

LISTS = {"train": "train", "test": "val"}


def open_parts(task: Task, place: Place) -> dict[str, PictureSet]:
    from torchvision.datasets import INaturalist

    year = task.name.rpartition("_")[2]
    reader = guarded(task.name, place, lambda: INaturalist(place.root, year, download=place.download))
    names = tuple(Path(found).name for found in reader.all_categories)
    return {part: _listed(task, place, year, f"{name}{year}.json", names) for part, name in LISTS.items()}


def _listed(task: Task, place: Place, year: str, name: str, class_names: tuple[str, ...]) -> PictureSet:
    """The pictures of a list in COCO's form; "train_val2018/Plantae/7477/x.jpg" lies in ROOT/2018/Plantae/7477."""
    folder = Path(place.root) / year
    path = next((p / name for p in (folder, folder.parent) if (p / name).is_file()), None)
    if path is None:
        raise UserError(
            f"'{task.name}' needs its list, but '{folder / name}' is missing; download it from the competition's page"
        )
    categories, files = guarded(task.name, place, lambda: _read(path))
    unlabelled = next((file for number, file in files.items() if number not in categories), None)
    if unlabelled is not None:
        raise UserError(f"'{path}' gives no category to '{unlabelled}'; download it again")
    labels = np.array([categories[number] for number in files], dtype=np.int64)
    if not 0 <= labels.min(initial=0) <= labels.max(initial=0) < len(class_names):
        raise UserError(
            f"'{path}' names category {labels.max()}, but '{folder}' has {len(class_names)}; unpack it again"
        )
    paths = [str(folder / file.partition("/")[2]) for file in files.values()]
    return open_files(paths, labels, class_names, root=place.root, name=task.name)


def _read(path: Path) -> tuple[dict[int, int], dict[int, str]]:
    """Category and file name by the picture's number."""
    content = json.loads(path.read_text(encoding="utf-8"))
    categories = {int(row["image_id"]): int(row["category_id"]) for row in content["annotations"]}
    return categories, {int(row["id"]): str(row["file_name"]) for row in content["images"]}
