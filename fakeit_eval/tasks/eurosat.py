"""EuroSAT in RGB (Helber et al., 2019): ROOT/eurosat/2750; no part is given; 810 test and 540 val images of every class
are drawn, as the sizes in the authors' public code are."""

from fakeit_eval.pictures.base import PictureSet
from fakeit_eval.tasks.base import Task
from fakeit_eval.tasks.readers import Place, path_of, read_listed


def open_parts(task: Task, place: Place) -> dict[str, PictureSet]:
    from torchvision.datasets import EuroSAT

    return {"all": read_listed(task.name, place, lambda: EuroSAT(place.root, download=place.download, loader=path_of))}
