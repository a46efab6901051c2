"""Initial weights of a network: random, or from torchvision, timm, an earlier run, or a file with a state dict.

Files are read as tensors only (`weights_only`, safetensors), so they cannot run code. The classifier is loaded if it
has the same classes (for a file: the same number of classes). Otherwise it stays randomly initialized.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from builders.errors import UserError
from builders.networks.backbone import DESCRIPTION, Backbone, build_network, load_backbone, pretrained_weights
from builders.networks.heads import heads_of
from builders.networks.state_dict import misfit, read_state_dict

LIBRARIES = ("torchvision", "timm")


def load_init_weights(network: nn.Module, backbone: Backbone, init: str) -> list[str]:
    """Loads weights into a network in place, and returns the names of the tensors that stay randomly initialized.

    `init` is "" (random), "torchvision" or "timm" (their pretrained weights of `backbone.arch`), the folder of a run,
    or a file with a state dict (.safetensors, or .pth read with `weights_only`).

    Raises:
        UserError: the weights do not exist, or tensors other than the classifier's are missing, unknown or of another
            shape.
    """
    if not init:
        return []
    heads = list(heads_of(network)) or _heads_of_classifier(backbone)
    found, expected = _state_dict(backbone, init, heads), network.state_dict()
    fresh: list[str] = []
    for head in heads:
        weight, bias = f"{head}.weight", f"{head}.bias"
        fits = weight in found and weight in expected and found[weight].shape == expected[weight].shape
        if not fits:
            found = {name: tensor for name, tensor in found.items() if name not in (weight, bias)}
        if bias in found and bias not in expected:
            if found[bias].any():
                raise UserError(f"init '{init}' has a classifier with a bias; add --set backbone.head_bias=true")
            # Exports have a bias of zeros, because other libraries expect one.
            del found[bias]
        if fits and bias in expected and bias not in found:
            found[bias] = torch.zeros_like(expected[bias])
        fresh += {weight, bias} & set(expected) - set(found)
    fresh.sort()
    if reason := misfit(found, expected, fresh):
        raise UserError(
            f"init '{init}' does not fit {backbone.library}'s {backbone.arch}: {reason}; "
            "set backbone.arch to the architecture of these weights"
        )
    network.load_state_dict({**expected, **found})
    return fresh


def _heads_of_classifier(backbone: Backbone) -> list[str]:
    """Returns the names that an encoder's classifiers would have; the weights of a classifier are not for it."""
    return list(heads_of(build_network(replace(backbone, classes=("any",)))))


def _state_dict(backbone: Backbone, init: str, heads: list[str]) -> dict[str, Tensor]:
    if init in LIBRARIES:
        return pretrained_weights(backbone, init)
    path = Path(init)
    if (path / DESCRIPTION).is_file():
        described, network = load_backbone(path)
        return _for_classes(dict(network.state_dict()), described.classes, backbone.classes, heads)
    if path.is_file():
        return read_state_dict(path)
    raise UserError(
        f"init '{init}' is neither {' nor '.join(LIBRARIES)}, nor a finished run, nor a file with a state dict; "
        "give one of these"
    )


def _for_classes(
    weights: dict[str, Tensor], theirs: tuple[str, ...], ours: tuple[str, ...], heads: list[str]
) -> dict[str, Tensor]:
    """Returns a run's weights with the classifier's rows in our order of classes.

    Returns them without the classifier if the classes differ.
    """
    names = [f"{head}.{kind}" for head in heads for kind in ("weight", "bias") if f"{head}.{kind}" in weights]
    if set(theirs) != set(ours):
        return {name: tensor for name, tensor in weights.items() if name not in names}
    rows = torch.tensor([theirs.index(name) for name in ours])
    return {**weights, **{name: weights[name][rows] for name in names}}
