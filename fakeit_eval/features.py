"""What a backbone says of a clone's images: pooled features and logits, as arrays.

Preprocessing is the paper's (supplementary, section 2): bicubic to the input size on the shortest side, then the middle square.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, get_worker_info
from tqdm import tqdm

from builders.format.backbone import Backbone, head_of
from builders.format.errors import UserError
from builders.format.images import decode_sample
from builders.format.open_clone import Clone


@dataclass(frozen=True)
class Extracted:
    features: NDArray[np.float32]
    """(n, feature_size), after pooling, before the classifier."""
    logits: NDArray[np.float32]
    """(n, number of classes of the backbone)."""
    labels: NDArray[np.int64]
    """(n,), labels of the clone."""


Pictures = tuple[torch.Tensor, torch.Tensor]
"""uint8 (batch, size, size, 3) and int64 (batch,)."""


class _PictureBatches(Dataset[Pictures | UserError]):
    """Whole batches, or what is wrong with one: an exception would come out of a worker as a traceback."""

    def __init__(self, clone: Clone, size: int) -> None:
        self.clone, self.size = clone, size

    def __len__(self) -> int:
        return len(self.clone)

    def __getitems__(self, numbers: list[int]) -> Pictures | UserError:
        try:
            samples = [self.clone[number] for number in numbers]
            squares = [middle_square(decode_sample(s.key, s.picture), self.size) for s in samples]
        except UserError as error:
            return error
        return torch.from_numpy(np.stack(squares)), torch.tensor([sample.label for sample in samples])


def middle_square(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(height, width, 3) resized bicubic so that the shortest side is `size`, cropped in the middle to (size, size, 3)."""
    height, width = picture.shape[:2]
    scale = size / min(height, width)
    wide, high = max(size, round(width * scale)), max(size, round(height * scale))
    resized = Image.fromarray(picture).resize((wide, high), Image.Resampling.BICUBIC)
    left, top = (wide - size) // 2, (high - size) // 2
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def extract(network: nn.Module, backbone: Backbone, clone: Clone, *, batch_size: int, num_workers: int) -> Extracted:
    """Features and logits of every image of a clone, in the clone's order."""
    parts = list(_batches(network, backbone, clone, batch_size, num_workers))
    return Extracted(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


@torch.inference_mode()
def _batches(
    network: nn.Module, backbone: Backbone, clone: Clone, batch_size: int, num_workers: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device).eval()
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (backbone.mean, backbone.std))
    seen: list[torch.Tensor] = []
    hook = head_of(network)[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    batches = _PictureBatches(clone, backbone.input_size)
    loader = DataLoader(
        batches, batch_size, num_workers=num_workers, collate_fn=_as_it_is, worker_init_fn=_start_worker
    )
    try:
        for batch in tqdm(loader, unit="batch", disable=None, leave=False):
            if isinstance(batch, UserError):
                raise batch
            pictures, labels = batch
            pixels = pictures.to(device).permute(0, 3, 1, 2).float() / 255
            logits = network((pixels - mean) / std)
            yield seen.pop().float().cpu().numpy(), logits.float().cpu().numpy(), labels.numpy()
    finally:
        hook.remove()


def _start_worker(worker: int) -> None:
    info = get_worker_info()
    assert info is not None
    dataset = cast(_PictureBatches, info.dataset)
    dataset.clone = copy.copy(dataset.clone)  # files and connections of the parent are not for a forked child


def _as_it_is(batch: Any) -> Pictures | UserError:
    return cast(Pictures | UserError, batch)
