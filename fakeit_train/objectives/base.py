"""The interface of objectives: an objective is a file in this folder whose `build` returns a module.

    objective = build(network, backbone, config)
    loss, metrics = objective(crops, labels, prompt_ids)

Data parallelism wraps the objective, so heads, teachers and queues in it are synchronized, optimized and saved with it.
`objective.network` is what the run exports.
"""

import importlib
import runpy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from builders.errors import UserError
from builders.networks.backbone import Backbone
from fakeit_train.config import TrainConfig

Result = tuple[Tensor, dict[str, Tensor]]
"""The loss, and metrics by name: each the sum over the images of this micro-batch, on the device and without a gradient
for the metrics. The trainer divides by the size of the global batch."""


class Objective(nn.Module):
    """Base of all objectives. It converts crops to pixels and gives them to the network."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, backbone: Backbone) -> None:
        super().__init__()
        self.network = network
        # Buffers, because a copy to the device inside the step would wait for the device.
        for name, values in (("mean", backbone.mean), ("std", backbone.std)):
            self.register_buffer(name, 255 * torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, crops: Sequence[Tensor], labels: Tensor, prompt_ids: Tensor) -> Result:
        """Computes the loss of a micro-batch.

        Args:
            crops: uint8 (batch, num_crops, size, size, 3) of each kind.
            labels: int64 (batch,); with mixup or cutmix float32 (batch, num_classes), whose rows sum to 1.
            prompt_ids: int64 (batch,); images of one prompt have the same, -1 stands for a clone without prompt ids.
        """
        raise NotImplementedError

    def outputs(self, crops: Tensor) -> Tensor:
        """Returns what the network gives for uint8 crops (batch, num_crops, size, size, 3): (batch, num_crops, …)."""
        pixels = normalize(crops.flatten(0, 1), self.mean, self.std)
        return torch.as_tensor(self.network(pixels)).unflatten(0, crops.shape[:2])


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Converts uint8 images (n, size, size, 3) to normalized float images (n, 3, size, size), in channels-last memory.

    `mean` and `std` are (3, 1, 1), on the scale of the levels 0 to 255.
    """
    # In place, because new tensors take most of the time on a CPU.
    return images.permute(0, 3, 1, 2).float().sub_(mean).div_(std)


def build_objective(network: nn.Module, config: TrainConfig) -> Objective:
    """Returns the objective of a configuration for a network.

    Raises:
        UserError: the user's file fails.
    """
    name = config.objective
    if not name.endswith(".py"):
        module = importlib.import_module(f"fakeit_train.objectives.{name}")
        found: Objective = module.build(network, config.backbone, config)
        return found
    try:
        made = runpy.run_path(name)["build"](network, config.backbone, config)
    except UserError:
        raise
    except Exception as error:  # the user's Python file may raise anything
        raise UserError(f"objective '{name}' cannot be built ({type(error).__name__}: {error}); fix it") from None
    if not isinstance(made, Objective):
        raise UserError(f"objective '{name}' builds a {type(made).__name__}; return an Objective (objectives/base.py)")
    return made
