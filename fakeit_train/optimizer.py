"""The optimizer: SGD with momentum, without weight decay on biases and normalization parameters."""

import torch
from torch import nn

from fakeit_train.config import OptimConfig


def make_optimizer(network: nn.Module, config: OptimConfig) -> torch.optim.SGD:
    """Returns SGD without weight decay on parameters of one dimension."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    free = [p for p in network.parameters() if p.ndim <= 1]
    param_groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.SGD(param_groups, lr=config.learning_rate, momentum=config.momentum)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for settings in optimizer.param_groups:
        settings["lr"] = rate
