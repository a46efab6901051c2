"""SGD with momentum; weight decay on weights, none on biases and norm parameters."""

import torch
from torch import nn

from fakeit_train.config import OptimConfig


def make_optimizer(network: nn.Module, config: OptimConfig) -> torch.optim.SGD:
    """The optimizer, with parameters of one dimension free of decay."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    free = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
