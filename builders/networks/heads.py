"""Finds and replaces the classifier of a network, and computes the features before it, for timm and torchvision.

timm says where its networks' classifiers are; for torchvision there is a table of four names. An encoder has none.
"""

from typing import TYPE_CHECKING, Any

from builders.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

TORCHVISION_HEADS = ("fc", "classifier", "heads.head", "head")
"""Names of the classifiers of torchvision's networks; some are the last layer of a sequence."""


def heads_of(network: "nn.Module") -> "dict[str, nn.Linear]":
    """Returns the linear classifiers of a network by name: one; two for distilled networks; none for an encoder.

    Raises:
        UserError: the classifier is not linear.
    """
    from torch import nn

    found = _classifiers(network)
    other = [name for name, module in found.items() if not isinstance(module, nn.Linear | nn.Identity)]
    if other:
        kind = type(found[other[0]]).__name__
        raise UserError(
            f"network '{type(network).__name__}' ends in a {kind}, not in a linear layer; choose another arch"
        )
    return {name: module for name, module in found.items() if isinstance(module, nn.Linear)}


def set_heads(network: "nn.Module", num_classes: int, make_head: "Callable[[int], nn.Module]") -> None:
    """Gives a network a fresh classifier; with 0 classes, it becomes an encoder.

    Args:
        make_head: Makes a classifier for features of a given size.

    Raises:
        UserError: the network has nothing that could be replaced.
    """
    from torch import nn

    made: Any = network
    if not num_classes:
        if hasattr(network, "reset_classifier"):
            made.reset_classifier(0)
        for name, head in heads_of(network).items():
            # torchvision's networks do not say it, as timm's do.
            made.num_features = head.in_features
            _replace(network, name, nn.Identity())
        return
    if not heads_of(network) and hasattr(network, "reset_classifier"):
        made.reset_classifier(num_classes)
    heads = heads_of(network)
    if not heads:
        raise UserError(f"network '{type(network).__name__}' has no linear classifier; choose another arch")
    for name, old in heads.items():
        _replace(network, name, make_head(old.in_features))


def features_of(network: "nn.Module", pixels: "Tensor") -> "Tensor":
    """Returns the pooled features (n, d) of normalized images (n, 3, height, width): what the classifier receives."""
    made: Any = network
    if hasattr(network, "forward_features") and hasattr(network, "forward_head"):
        return made.forward_head(made.forward_features(pixels), pre_logits=True)  # type: ignore[no-any-return]
    heads = heads_of(network)
    if not heads:
        return made(pixels)  # type: ignore[no-any-return]
    seen: list[Tensor] = []
    hook = next(iter(heads.values())).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        network(pixels)
    finally:
        hook.remove()
    return seen[0]


def feature_size(network: "nn.Module") -> int:
    """Returns the length of the features; 0 if an encoder does not say it."""
    for head in heads_of(network).values():
        return head.in_features
    return int(getattr(network, "head_hidden_size", 0) or getattr(network, "num_features", 0))


def _classifiers(network: "nn.Module") -> "dict[str, nn.Module]":
    from torch import nn

    names = {module: name for name, module in network.named_modules()}
    if hasattr(network, "get_classifier"):
        made: Any = network
        own = made.get_classifier()
        modules = own if isinstance(own, tuple | list) else (own,)
        return {names[module]: module for module in modules if module in names}
    for name in TORCHVISION_HEADS:
        try:
            module = network.get_submodule(name)
        except AttributeError:
            continue
        if isinstance(module, nn.Sequential):
            linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear | nn.Identity)]
            module = linear[-1] if linear else module
        return {names[module]: module}
    return {}


def _replace(network: "nn.Module", name: str, module: "nn.Module") -> None:
    setattr(network.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], module)
