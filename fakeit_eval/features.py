"""What a backbone says of a clone's images: pooled features and logits, as arrays."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from builders.format.backbone import Backbone, head_of
from builders.format.errors import UserError
from builders.format.open_clone import Clone
from builders.format.squares import SquareBatches, as_it_is, start_worker


@dataclass(frozen=True)
class Extracted:
    features: NDArray[np.float32]
    """(n, feature_size), after pooling, before the classifier."""
    logits: NDArray[np.float32]
    """(n, number of classes of the backbone)."""
    labels: NDArray[np.int64]
    """(n,), labels of the clone."""


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
    loader: DataLoader[Any] = DataLoader(
        SquareBatches(clone, backbone.input_size),  # type: ignore[arg-type]
        batch_size,
        num_workers=num_workers,
        collate_fn=as_it_is,
        worker_init_fn=start_worker,
    )
    try:
        for batch in tqdm(loader, unit="batch", disable=None, leave=False):
            if isinstance(batch, UserError):
                raise batch
            pictures, labels = batch
            pixels = torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float() / 255
            logits = network((pixels - mean) / std)
            yield seen.pop().float().cpu().numpy(), logits.float().cpu().numpy(), labels
    finally:
        hook.remove()
