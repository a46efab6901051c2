"""EuroSAT in RGB (Helber et al., 2019): ROOT/eurosat/2750; no part is given, all are drawn."""

from fakeit_eval.pictures.base import PictureSet
from fakeit_eval.tasks.base import Task
from fakeit_eval.tasks.readers import Place, path_of, read_listed


def open_parts(task: Task, place: Place) -> dict[str, PictureSet]:
    from torchvision.datasets import EuroSAT

    return {"all": read_listed(task.name, place, lambda: EuroSAT(place.root, download=place.download, loader=path_of))}
