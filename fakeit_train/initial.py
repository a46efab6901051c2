"""Where a network's weights begin: fresh, or from torchvision, timm, a run of ours, or a state dict in a file.

Files are read as tensors alone (`weights_only`, safetensors), so that none can run code. The classifier is taken where it
has the same classes (of a file: as many), and begins afresh otherwise.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from builders.format.backbone import DESCRIPTION, Backbone, head_of, load_backbone, pretrained_weights
from builders.format.errors import UserError

LIBRARIES = ("torchvision", "timm")
WRAPPINGS = ("state_dict", "model", "network", "teacher", "student")
"""Names under which training scripts keep the state dict in a checkpoint."""
MAX_WRAPPINGS = 3
PREFIXES = ("module.", "_orig_mod.", "network.", "model.", "backbone.", "encoder.")
"""Of tensor names, added by wrappers around the network."""


def load_initial(network: nn.Module, backbone: Backbone, init: str) -> list[str]:
    """Loads weights into a network in place; the names of its tensors that begin afresh.

    `init` is "" (fresh), "torchvision", "timm" (their pretrained weights of `backbone.arch`), a run directory, or a file
    with a state dict (.safetensors, or .pth read with `weights_only`).

    Raises:
        UserError: there are no such weights, or tensors beside the classifier's are missing, unknown or of another shape.
    """
    if not init:
        return []
    head = head_of(network)[0]
    weight, bias = f"{head}.weight", f"{head}.bias"
    found, expected = _state_dict(backbone, init, head), network.state_dict()
    fits = weight in found and found[weight].shape == expected[weight].shape
    if not fits:
        found = {name: tensor for name, tensor in found.items() if name not in (weight, bias)}
    if bias in found and bias not in expected:
        if found[bias].any():
            raise UserError(f"init '{init}' has a classifier with a bias; add --set backbone.head_bias=true")
        del found[bias]  # as exports have it, for other libraries
    if fits and bias in expected and bias not in found:
        found[bias] = torch.zeros_like(expected[bias])
    fresh = sorted({weight, bias} & set(expected) - set(found))
    _check(found, expected, fresh, backbone, init)
    network.load_state_dict({**expected, **found})
    return fresh


def _check(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], fresh: list[str], backbone: Backbone, init: str
) -> None:
    counters = {name for name in expected if name.endswith("num_batches_tracked")}
    missing = [name for name in expected if name not in found and name not in fresh and name not in counters]
    unknown = [name for name in found if name not in expected]
    other = [name for name in expected if name in found and found[name].shape != expected[name].shape]
    unusable = [
        name
        for name, tensor in found.items()
        if tensor.is_complex() or tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized
    ]
    for what, names in (
        ("has no plain numbers in", unusable),
        ("lacks", missing),
        ("also has", unknown),
        ("has another shape of", other),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise UserError(
                f"init '{init}' does not fit {backbone.library}'s {backbone.arch}: it {what} {', '.join(names[:3])}{more}; "
                "choose the weights' own backbone.arch"
            )


def _state_dict(backbone: Backbone, init: str, head: str) -> dict[str, Tensor]:
    if init in LIBRARIES:
        return pretrained_weights(backbone, init)
    path = Path(init)
    if (path / DESCRIPTION).is_file():
        described, network = load_backbone(path)
        return _for_classes(dict(network.state_dict()), described.classes, backbone.classes, head)
    if path.is_file():
        return _named_plainly(_read(path), init)
    raise UserError(
        f"init '{init}' is neither {' nor '.join(LIBRARIES)}, nor a finished run, nor a file with a state dict; "
        "give one of them"
    )


def _for_classes(
    weights: dict[str, Tensor], theirs: tuple[str, ...], ours: tuple[str, ...], head: str
) -> dict[str, Tensor]:
    """A run's weights with its classifier in our order of classes, or without one where the classes are others."""
    names = [name for name in (f"{head}.weight", f"{head}.bias") if name in weights]
    if set(theirs) != set(ours):
        return {name: tensor for name, tensor in weights.items() if name not in names}
    rows = torch.tensor([theirs.index(name) for name in ours])
    return {**weights, **{name: weights[name][rows] for name in names}}


def _read(path: Path) -> Any:
    """What a file of weights holds.

    Raises:
        UserError: it cannot be read, or holds more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle, safetensors and torch have each their own kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"init '{path}' cannot be read as tensors alone ({reason}); save its state dict by itself"
        ) from None


def _named_plainly(content: Any, init: str) -> dict[str, Tensor]:
    """The state dict in a checkpoint, without the prefixes that all its names share."""
    for _ in range(MAX_WRAPPINGS):
        held = content if isinstance(content, dict) else {}
        inner = next((held[name] for name in WRAPPINGS if isinstance(held.get(name), dict)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, dict):
        raise UserError(f"init '{init}' holds no state dict; save one with torch.save(network.state_dict(), …)")
    found = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not found:
        raise UserError(f"init '{init}' holds no tensors; save a state dict with torch.save(network.state_dict(), …)")
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in found)), None):
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found
