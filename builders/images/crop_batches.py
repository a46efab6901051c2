"""Loads batches of center crops by several processes, for validation and for evaluation."""

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from builders.errors import UserError
from builders.images.center_crop import center_crop
from builders.images.read import ReadImage

if TYPE_CHECKING:
    import torch
    from torch.utils.data import DataLoader

SHARED_MEMORY = "/dev/shm"
BATCHES_PER_WORKER = 2
"""Batches that torch's DataLoader lets each process prepare."""
MAX_WORKERS = 8


def default_workers() -> int:
    """Returns how many processes load images if the user does not say: one for each core, up to 8."""
    return min(MAX_WORKERS, os.cpu_count() or 1)


class Images(Protocol):
    """Numbered images with labels. A copy (`copy.copy`) shares no file and no connection with the original."""

    def __len__(self) -> int: ...

    def read_labeled(self, number: int) -> tuple[ReadImage, int]:
        """Returns an image and its label.

        Raises:
            UserError: the image cannot be read or decoded.
        """


Batch = tuple["torch.Tensor", "torch.Tensor", int]
"""uint8 (batch, size, size, 3), labels (batch,), and the number of files that were cut short."""


class CroppedBatches:
    """A map-style dataset of whole batches for torch's DataLoader: center crops and labels for a list of image numbers.

    If an image cannot be read, the error is returned instead: raised in a worker, it would reach users as a traceback.
    """

    def __init__(self, images: Images, size: int) -> None:
        self.images, self.size = images, size

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, numbers: list[int]) -> Batch | UserError:
        import torch
        from torch.utils.data import get_worker_info

        try:
            found = [self.images.read_labeled(number) for number in numbers]
        except UserError as error:
            return error
        crops = torch.empty((len(found), self.size, self.size, 3), dtype=torch.uint8)
        if get_worker_info():
            # Where other processes read it; otherwise torch would copy it there.
            crops.share_memory_()
        for crop, (image, _) in zip(crops.numpy(), found, strict=True):
            crop[:] = center_crop(image.pixels, self.size)
        labels = torch.tensor([label for _, label in found])
        return crops, labels, sum(image.is_cut for image, _ in found)


def crop_loader(
    images: Images,
    size: int,
    numbers: Sequence[int],
    *,
    batch_size: int,
    workers: int,
    advice: str,
    start: Callable[[int], None] | None = None,
    **options: Any,
) -> "DataLoader[Any]":
    """Returns a loader of the images with these numbers, in batches; iterate over it with `checked_batches`.

    Args:
        workers: Number of processes, of which no more are started than there are batches; 0 loads in this process.
        advice: What to change if there is too little shared memory for them.
        start: Called first in each process.
        options: Further options of torch's DataLoader for these processes.

    Raises:
        UserError: there is too little shared memory.
    """
    import torch
    from torch.utils.data import DataLoader

    batches = [list(numbers[first : first + batch_size]) for first in range(0, len(numbers), batch_size)]
    workers = min(workers, len(batches))
    check_shared_memory(3 * size**2 * min(batch_size, len(numbers)), workers, advice)
    return DataLoader(
        CroppedBatches(images, size),  # type: ignore[arg-type]
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=as_it_is,
        worker_init_fn=start or start_worker,
        pin_memory=torch.cuda.is_available(),
        **(options if workers else {}),
    )


def checked_batches(loader: "DataLoader[Any]") -> Iterator[Any]:
    """Yields the batches of a loader whose dataset returns errors as values.

    Raises:
        UserError: an image cannot be read.
    """
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch


def check_shared_memory(num_bytes: int, workers: int, advice: str) -> None:
    """Checks that batches of `num_bytes` from several processes fit into the shared memory.

    Otherwise a process would end by a bus error, or torch would wait for its batch forever.

    Raises:
        UserError: they do not; it says `advice`.
    """
    status = os.statvfs(SHARED_MEMORY)
    free, needed = status.f_frsize * status.f_bavail, BATCHES_PER_WORKER * workers * num_bytes
    if needed > free:
        raise UserError(
            f"{workers} processes that load batches of {num_bytes / 2**20:,.1f} MiB need {needed / 2**20:,.1f} MiB of shared "
            f"memory, and {SHARED_MEMORY} has {free / 2**20:,.1f} MiB; {advice}, or give the container more "
            "(docker run --shm-size 8g)"
        )


def as_it_is(batch: Any) -> Any:
    """Returns the batch itself, as DataLoader's `collate_fn`: batches are already complete."""
    return batch


def start_worker(worker: int) -> None:
    """Copies the dataset's images, as DataLoader's `worker_init_fn`.

    A forked worker must not use the files and connections of its parent.
    """
    from torch.utils.data import get_worker_info

    info = get_worker_info()
    assert info is not None
    dataset = info.dataset
    assert isinstance(dataset, CroppedBatches)
    dataset.images = copy.copy(dataset.images)
