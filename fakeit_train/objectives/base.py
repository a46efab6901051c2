"""The interface of objectives: an objective is a file in this folder whose `build` returns a module.

    TRAITS = Traits(…)                            # may be left out: an objective that trains a classifier
    objective = build(network, backbone, config)
    loss, metrics = objective(crops, labels, prompt_ids)

Data parallelism wraps the objective, so heads, teachers and queues in it are synchronized, optimized and saved with it.
`objective.learned` is what the run exports.
"""

import importlib
import runpy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from builders.errors import UserError
from builders.networks.backbone import Backbone
from fakeit_train.config import TrainConfig
from fakeit_train.objective_config import ContrastConfig, DistillationConfig

Result = tuple[Tensor, dict[str, Tensor]]
"""The loss, and metrics by name: each the sum over the images of this micro-batch, on the device and without a gradient
for the metrics. The trainer divides by the size of the global batch."""


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What an objective needs of a run; a module says it as `TRAITS`."""

    has_classifier: bool = True
    """Whether the network has a classifier. Otherwise it is an encoder, and the run exports no classes."""
    compares_images: bool = False
    """Whether the loss compares the images of a global batch, so that the batch cannot be split into micro-batches, and
    all ranks need as many images."""
    deals_siblings: bool = False
    """Whether images of one prompt have to come into the same batch."""
    has_average: bool = False
    """Whether what it exports is an average of weights already."""
    settings: str = ""
    """Name of the settings that are for such objectives, such as contrast."""


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

    @property
    def learned(self) -> nn.Module:
        """The network to export."""
        return self.network

    def before_step(self, step: int, num_steps: int) -> None:
        """Prepares the step with a number, from 0 to `num_steps` - 1."""

    def after_step(self) -> None:
        """Changes what is not learned by gradients, after the optimizer's update."""

    def outputs(self, crops: Tensor, network: nn.Module | None = None) -> Tensor:
        """Returns what the network gives for uint8 crops (batch, num_crops, size, size, 3): (batch, num_crops, …)."""
        pixels = normalize(crops.flatten(0, 1), self.mean, self.std)
        return torch.as_tensor((network or self.network)(pixels)).unflatten(0, crops.shape[:2])

    def features(self, crops: Sequence[Tensor], network: nn.Module | None = None) -> Tensor:
        """Returns an encoder's features (batch, num_crops, d) of crops of all kinds, of the largest crops first.

        Kinds of the same size take one forward pass.
        """
        by_size: dict[int, list[Tensor]] = {}
        for crops_of_kind in crops:
            by_size.setdefault(crops_of_kind.shape[2], []).append(crops_of_kind)
        sizes = sorted(by_size, reverse=True)
        return torch.cat([self.outputs(torch.cat(by_size[size], 1), network) for size in sizes], 1)


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Converts uint8 images (n, size, size, 3) to normalized float images (n, 3, size, size), in channels-last memory.

    `mean` and `std` are (3, 1, 1), on the scale of the levels 0 to 255.
    """
    # In place, because new tensors take most of the time on a CPU.
    return images.permute(0, 3, 1, 2).float().sub_(mean).div_(std)


@torch.no_grad()
def spread(embeddings: Tensor) -> Tensor:
    """Returns the spread of embeddings (n, d) of length 1 over the sphere: 1 if uniform, 0 if all are the same.

    It is the mean over dimensions of the standard deviation, times the square root of d (Chen and He, 2021).
    """
    return embeddings.float().std(0, correction=0).mean() * embeddings.shape[1] ** 0.5


def traits_of(name: str) -> Traits:
    """Returns the traits of an objective, by its name or its file.

    Raises:
        UserError: the user's file fails.
    """
    found: Traits = _namespace(name).get("TRAITS", Traits())
    return found


def check_settings(config: TrainConfig, num_ranks: int) -> None:
    """Checks settings that the objective would ignore or that it cannot have.

    Raises:
        UserError: there is one.
    """
    traits, name = traits_of(config.objective), config.objective
    if traits.compares_images and config.optim.accumulation > 1:
        raise UserError(
            f"'{name}' compares all images of a batch, which optim.accumulation={config.optim.accumulation} would split; "
            "leave it out, and lower data.batch_size"
        )
    if traits.compares_images and config.data.batch_size % num_ranks:
        raise UserError(
            f"'{name}' compares the images of all ranks; give a data.batch_size that is divisible by {num_ranks}, not "
            f"{config.data.batch_size}"
        )
    if traits.has_average and config.optim.ema:
        raise UserError(f"'{name}' exports an average of weights already; leave out optim.ema={config.optim.ema:g}")
    if config.data.siblings and not traits.deals_siblings:
        raise UserError(
            f"data.siblings is for objectives that compare images of a prompt, not for '{name}'; leave it out"
        )
    for section, defaults in (("contrast", ContrastConfig()), ("distillation", DistillationConfig())):
        if getattr(config, section) != defaults and traits.settings != section and not name.endswith(".py"):
            raise UserError(f"settings of {section} are for other objectives than '{name}'; leave them out")
    of_classifiers = {
        "validation.every": config.validation.every > 0,
        "mixing.mixup and mixing.cutmix": config.mixing.is_on,
        "label_smoothing": config.label_smoothing > 0,
        "crop_weights": bool(config.crop_weights),
        "optim.layers=head": config.optim.layers == "head",
    }
    found = [setting for setting, is_on in of_classifiers.items() if is_on]
    if found and not traits.has_classifier:
        raise UserError(f"{found[0]} is for objectives that train a classifier, and '{name}' trains none; leave it out")


def build_objective(network: nn.Module, config: TrainConfig) -> Objective:
    """Returns the objective of a configuration for a network.

    Raises:
        UserError: the user's file fails.
    """
    name = config.objective
    build = _namespace(name).get("build")
    if not name.endswith(".py"):
        assert build is not None
        found: Objective = build(network, config.backbone, config)
        return found
    try:
        made = build(network, config.backbone, config)  # type: ignore[misc]
    except UserError:
        raise
    except Exception as error:  # the user's Python file may raise anything
        raise UserError(f"objective '{name}' cannot be built ({type(error).__name__}: {error}); fix it") from None
    if not isinstance(made, Objective):
        raise UserError(f"objective '{name}' builds a {type(made).__name__}; return an Objective (objectives/base.py)")
    return made


def _namespace(name: str) -> dict[str, Any]:
    """Returns what an objective's module or file defines."""
    if not name.endswith(".py"):
        return vars(importlib.import_module(f"fakeit_train.objectives.{name}"))
    try:
        return runpy.run_path(name)
    except Exception as error:  # the user's Python file may raise anything
        raise UserError(f"objective '{name}' cannot be built ({type(error).__name__}: {error}); fix it") from None
