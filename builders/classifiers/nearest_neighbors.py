"""k nearest neighbors by cosine, with votes weighted by exp(similarity / 0.07) as in DINO (Caron et al., 2021)."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Features = NDArray[np.float32]
"""Features (n, d)."""
Labels = NDArray[np.int64]
"""Labels (n,), class numbers from 0."""
LabeledFeatures = tuple[Features, Labels]
TEMPERATURE = 0.07
"""Temperature of the votes' weights."""
ROWS = 1024
"""Queries of a block."""


def nearest_neighbors(known: LabeledFeatures, queries: Features, num: int) -> tuple["Tensor", "Tensor"]:
    """Returns cosine similarities and labels (n, num) of the nearest known samples of each query, the nearest first.

    There are fewer if fewer are known. They are searched on the GPU if there is one.
    """
    import torch
    from torch.nn.functional import normalize

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.inference_mode():
        features = normalize(torch.from_numpy(known[0]).float().to(device))
        labels = torch.from_numpy(known[1])
        num = min(num, len(labels))
        found = [
            (normalize(some.float().to(device)) @ features.T).topk(num, dim=1)
            for some in torch.from_numpy(queries).split(ROWS)
        ]
        indices = torch.cat([split.indices.cpu() for split in found])
        return torch.cat([split.values.cpu() for split in found]), labels[indices]


def vote(similarities: "Tensor", labels: "Tensor", k: float) -> Labels:
    """Returns the predicted labels (n,), given similarities and labels (n, at least k) of the neighbors."""
    import torch

    num = min(int(k), similarities.shape[1])
    weights = (similarities[:, :num] / TEMPERATURE).exp()
    votes = torch.zeros(len(weights), int(labels.max()) + 1).scatter_add_(1, labels[:, :num], weights)
    return np.asarray(votes.argmax(1), dtype=np.int64)
