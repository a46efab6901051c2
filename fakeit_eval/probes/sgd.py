"""A linear classifier by SGD in PyTorch, the paper's probe for iNaturalist and the CoG levels.

Learning rate and weight decay are tuned. Their ranges, momentum, epochs, batch size and schedule are those of the
authors' public code; the paper does not give them. As in that code, the rate is set after each epoch from that epoch's
number, so the first two epochs run at the full rate. The classifier after the last epoch counts; a fit stops once its
loss is not finite. Features are l2-normalized, and stay on their device."""

import math
from collections.abc import Callable

import numpy as np
import optuna
import torch
import torch.nn.functional as F

from fakeit_eval.probes.base import LabeledFeatures, Labels, Parameters, ProbeData, top1

LEARNING_RATES = (0.1, 100.0)
WEIGHT_DECAYS = (1e-12, 1e-4)
"""Ranges that are searched on a log scale."""
MOMENTUM = 0.9
NUM_EPOCHS = 100
BATCH_SIZE = 1024
SAMPLER = {"multivariate": True, "group": True}
"""Options of Optuna's TPESampler: learning rate and weight decay are sampled jointly."""


def suggest(trial: optuna.Trial) -> Parameters:
    return {
        "learning_rate": trial.suggest_float("learning_rate", *LEARNING_RATES, log=True),
        "weight_decay": trial.suggest_float("weight_decay", *WEIGHT_DECAYS, log=True),
    }


def open_tuning(data: ProbeData, seed: int) -> Callable[[Parameters], float]:
    train, (val, _) = _on_device(data.train), _on_device(data.val)
    num_classes = _num_classes(data)
    return lambda parameters: top1(_predict(_fit(train, num_classes, parameters, seed), val), data.val[1])


def open_final(data: ProbeData, seed: int) -> Callable[[Parameters], Labels]:
    both, (test, _) = _on_device(data.both), _on_device(data.test)
    return lambda parameters: _predict(_fit(both, _num_classes(data), parameters, seed), test)


def _fit(
    train: tuple[torch.Tensor, torch.Tensor], num_classes: int, parameters: Parameters, seed: int
) -> torch.nn.Linear:
    """The classifier after the last epoch, or before the first step whose loss is not finite."""
    features, labels = train
    torch.manual_seed(seed)
    network = torch.nn.Linear(features.shape[1], num_classes).to(features.device)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=parameters["learning_rate"],
        momentum=MOMENTUM,
        weight_decay=parameters["weight_decay"],
    )
    shuffle = torch.Generator().manual_seed(seed)
    for epoch in range(1, NUM_EPOCHS + 1):
        for rows in torch.randperm(len(labels), generator=shuffle).to(features.device).split(BATCH_SIZE):
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(network(features[rows]), labels[rows])
            if not torch.isfinite(loss):
                return network
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        optimizer.param_groups[0]["lr"] = parameters["learning_rate"] * rate_after(epoch)
    return network


def rate_after(epoch: int) -> float:
    """Fraction of the full learning rate that is set after an epoch, counted from 1: cosine decay from 1."""
    return 0.5 * (1 + math.cos(math.pi * (epoch - 1) / NUM_EPOCHS))


def _num_classes(data: ProbeData) -> int:
    return int(max(split[1].max() for split in (data.train, data.val, data.test))) + 1


def _on_device(split: LabeledFeatures) -> tuple[torch.Tensor, torch.Tensor]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return F.normalize(torch.from_numpy(split[0]).float().to(device)), torch.from_numpy(split[1]).to(device)


@torch.inference_mode()
def _predict(network: torch.nn.Linear, features: torch.Tensor) -> Labels:
    return np.concatenate([network(some).argmax(1).cpu().numpy() for some in features.split(65536)])
