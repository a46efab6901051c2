"""EuroSAT in RGB (Helber et al., 2019): ROOT/eurosat/2750; no split is published.

810 test and 540 val images of every class are drawn; these sizes are those in the paper authors' public code.
"""

from builders.image_sets.annotation_files import DataRoot, path_of, read_listed
from builders.image_sets.base import ImageSet
from fakeit_eval.tasks.base import Task


def open_splits(task: Task, data_root: DataRoot) -> dict[str, ImageSet]:
    from torchvision.datasets import EuroSAT

    return {
        "all": read_listed(
            task.name, data_root, lambda: EuroSAT(data_root.root, download=data_root.download, loader=path_of)
        )
    }
