"""Oxford-IIIT Pets (Parkhi et al., 2012): ROOT/oxford-iiit-pet; val is drawn from trainval."""

from pathlib import Path

from fakeit_eval.pictures.base import PictureSet
from fakeit_eval.tasks.base import Task
from fakeit_eval.tasks.readers import Place, read_listed


def open_parts(task: Task, place: Place) -> dict[str, PictureSet]:
    from torchvision.datasets import OxfordIIITPet

    class Listed(OxfordIIITPet):  # type: ignore[misc]
        """The one reader that takes no `loader`."""

        def __getitem__(self, number: int) -> tuple[Path, int]:
            return self._images[number], self._labels[number]

    return {
        part: read_listed(
            task.name,
            place,
            lambda split=split: Listed(place.root, split, download=place.download),  # type: ignore[misc]
        )
        for part, split in (("train", "trainval"), ("test", "test"))
    }
