"""The optimizer, one of timm's by name, with its parameter groups: weight decay, and a learning rate for each layer."""

from typing import Any

import torch
from torch import nn

from builders.errors import UserError, first_line, suggest
from fakeit_train.config import OptimConfig
from fakeit_train.objectives.base import Objective

WITHOUT_RESUME = ("kron", "adahessian")
"""Optimizers with random numbers or lists in their state, which differ between ranks and are not in checkpoints."""
RATE_FACTOR = "lr_scale"
"""Key of a parameter group with the factor of its learning rate; timm's name."""


def make_optimizer(objective: Objective, config: OptimConfig) -> torch.optim.Optimizer:
    """Returns the optimizer of an objective's parameters that need a gradient.

    Biases, parameters of normalization, and those that the network lists in timm's `no_weight_decay` have no decay.

    Raises:
        UserError: timm has no such optimizer, or the optimizer or the network does not take a setting.
    """
    from timm.optim import create_optimizer_v2, list_optimizers

    names = sorted(list_optimizers())
    if config.name.startswith(WITHOUT_RESUME):
        raise UserError(f"optimizer '{config.name}' keeps a state that a resumed run would lose; choose another")
    if config.name not in names:
        raise UserError(f"unknown optimizer '{config.name}'; {suggest(config.name, names)}")
    try:
        return create_optimizer_v2(  # type: ignore[no-any-return]
            _parameters(objective, config), config.name, lr=config.learning_rate, momentum=config.momentum,
            **({"betas": config.betas} if config.betas else {}),
        )  # fmt: skip
    except (TypeError, ValueError, IndexError, AssertionError, RuntimeError) as error:
        raise UserError(f"optimizer '{config.name}' cannot be made ({first_line(error)}); choose another") from None


def _parameters(objective: Objective, config: OptimConfig) -> list[dict[str, Any]]:
    """Returns timm's parameter groups of the network, and those of what the objective has besides."""
    from timm.optim import param_groups_layer_decay, param_groups_weight_decay

    network = objective.network
    free: set[str] = getattr(network, "no_weight_decay", set)()
    if config.layer_decay < 1:
        if not hasattr(network, "group_matcher"):
            raise UserError(
                f"optim.layer_decay needs a network that says its layers, as timm's do, and "
                f"'{type(network).__name__}' does not; leave it out, or set backbone.library=timm"
            )
        of_network = param_groups_layer_decay(
            network, config.weight_decay, no_weight_decay_list=free, layer_decay=config.layer_decay
        )
    else:
        of_network = param_groups_weight_decay(network, config.weight_decay, no_weight_decay_list=free)
    others = nn.ModuleDict({name: module for name, module in objective.named_children() if module is not network})
    others["own"] = nn.ParameterDict(dict(objective.named_parameters(recurse=False)))
    return [*of_network, *param_groups_weight_decay(others, config.weight_decay)]


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate; a group's own is a fixed factor of it."""
    for settings in optimizer.param_groups:
        settings["lr"] = rate * settings.get(RATE_FACTOR, 1.0)
