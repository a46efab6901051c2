"""Oxford-IIIT Pets (Parkhi et al., 2012): ROOT/oxford-iiit-pet; val is drawn from trainval."""

from pathlib import Path

from builders.image_sets.annotation_files import DataRoot, read_listed
from builders.image_sets.base import ImageSet
from fakeit_eval.tasks.base import Task


def open_splits(task: Task, data_root: DataRoot) -> dict[str, ImageSet]:
    from torchvision.datasets import OxfordIIITPet

    class Listed(OxfordIIITPet):  # type: ignore[misc]
        """Returns paths instead of images; OxfordIIITPet has no argument `loader`."""

        def __getitem__(self, number: int) -> tuple[Path, int]:
            return self._images[number], self._labels[number]

    return {
        split: read_listed(
            task.name,
            data_root,
            lambda published=published: Listed(data_root.root, published, download=data_root.download),  # type: ignore[misc]
        )
        for split, published in (("train", "trainval"), ("test", "test"))
    }
