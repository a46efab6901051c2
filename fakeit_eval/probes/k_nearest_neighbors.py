"""k nearest neighbors by cosine, with votes weighted by exp(similarity / 0.07) as in DINO (Caron et al., 2021).

k is tuned. Nothing is fitted. The neighbors are searched once, and all values of k use them.
"""

from collections.abc import Callable

import numpy as np
import optuna
import torch
import torch.nn.functional as F

from fakeit_eval.probes.base import LabeledFeatures, Labels, Parameters, ProbeData, top1

CHOICES = (1, 5, 10, 20, 50, 100, 200)
CANDIDATES = tuple({"k": k} for k in CHOICES)
TEMPERATURE = 0.07
"""Temperature of the votes' weights."""
ROWS = 1024
"""Queries of a block."""


def suggest(trial: optuna.Trial) -> Parameters:
    return {"k": trial.suggest_int("k", min(CHOICES), max(CHOICES))}


def open_tuning(data: ProbeData, seed: int) -> Callable[[Parameters], float]:
    neighbors = _neighbors(data.train, data.val[0])
    return lambda parameters: top1(_vote(*neighbors, parameters["k"]), data.val[1])


def open_final(data: ProbeData, seed: int) -> Callable[[Parameters], Labels]:
    neighbors = _neighbors(data.both, data.test[0])
    return lambda parameters: _vote(*neighbors, parameters["k"])


@torch.inference_mode()
def _neighbors(known: LabeledFeatures, queries: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[type-arg]
    """Cosine similarities and labels (n, max k) of the nearest known samples of each query, the nearest first."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    features = F.normalize(torch.from_numpy(known[0]).float().to(device))
    labels = torch.from_numpy(known[1])
    num = min(max(CHOICES), len(labels))
    found = [
        (F.normalize(some.float().to(device)) @ features.T).topk(num, dim=1)
        for some in torch.from_numpy(queries).split(ROWS)
    ]
    return torch.cat([split.values.cpu() for split in found]), labels[
        torch.cat([split.indices.cpu() for split in found])
    ]


def _vote(similarities: torch.Tensor, labels: torch.Tensor, k: float) -> Labels:
    num = min(int(k), similarities.shape[1])
    weights = (similarities[:, :num] / TEMPERATURE).exp()
    votes = torch.zeros(len(weights), int(labels.max()) + 1).scatter_add_(1, labels[:, :num], weights)
    return np.asarray(votes.argmax(1), dtype=np.int64)
