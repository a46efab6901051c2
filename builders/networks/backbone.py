"""The export of a training run: `backbone.safetensors` and `backbone.json`. Evaluation reads no other file of a run.

Torch, timm and torchvision are imported when a network is built, not before.
"""

import json
import math
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from builders.errors import UserError, first_line, missing_extra
from builders.networks.heads import feature_size, heads_of, set_heads

if TYPE_CHECKING:
    from torch import Tensor, nn

DESCRIPTION = "backbone.json"
WEIGHTS = "backbone.safetensors"
LIBRARIES = ("timm", "torchvision")
HEADS = ("linear", "cosine")
LOADING = ("checkpoint", "pretrained", "weights", "cache_dir", "progress")
"""Prefixes of constructor arguments that would fetch or read weights. A description that has one is rejected."""


@dataclass(frozen=True, kw_only=True)
class Backbone:
    library: str
    """Library of the network: timm or torchvision."""
    arch: str
    """Name of the network in its library."""
    arch_options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments for the library's constructor."""
    head: str = "linear"
    """Classifier: linear, or cosine (the cosine of feature and class vector, divided by a temperature)."""
    head_bias: bool = False
    """Whether a linear classifier has a bias."""
    temperature: float = 0.1
    """Temperature of a cosine classifier; lower is sharper."""
    feature_size: int = 0
    """Length of the pooled feature, which is the classifier's input."""
    input_size: int = 224
    """Side of the square input at test time, in pixels."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Mean of RGB in [0, 1], which is subtracted from the pixels."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Standard deviation of RGB, by which the pixels are then divided."""
    classes: tuple[str, ...] = ()
    """Class id (wnid) of each output."""
    class_names: tuple[str, ...] = ()
    """Display name of the class of each output; () if unknown."""
    trained_on: str = ""
    """Name of the clone's recipe, for readers of the file."""

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise UserError(f"unknown head '{self.head}'; choose from {', '.join(HEADS)}")
        if not 0 < self.temperature < math.inf:
            raise UserError(f"temperature is {self.temperature}, but must be more than 0")
        for name in self.arch_options:
            if name.startswith(LOADING):
                raise UserError(f"arch_options has '{name}', which would load weights; leave it out, and use --init")
        if not (isinstance(self.input_size, int) and isinstance(self.feature_size, int) and self.input_size > 0):
            raise UserError(f"input_size is {self.input_size}, but must be a number of pixels")
        if (
            not all(len(values) == 3 and all(map(_is_finite, values)) for values in (self.mean, self.std))
            or 0 in self.std
        ):
            raise UserError(
                f"mean {self.mean} and std {self.std} must have three numbers each, and none of std may be 0"
            )
        if self.head == "cosine" and self.head_bias:
            raise UserError("a cosine head has no bias; leave head_bias out")


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def build_network(backbone: Backbone) -> "nn.Module":
    """Returns the network with fresh weights and a classifier over `classes`; without classes, an encoder.

    Raises:
        UserError: the library or the network does not exist, or the library is not installed.
    """
    network = _create(backbone)
    set_heads(network, len(backbone.classes), partial(_make_head, backbone))
    return network


def _make_head(backbone: Backbone, feature_size: int) -> "nn.Linear":
    """Returns a fresh classifier: linear, or by the cosine of feature and class vector."""
    from torch import nn

    num_classes = len(backbone.classes)
    if backbone.head == "linear":
        return nn.Linear(feature_size, num_classes, bias=backbone.head_bias)

    class CosineLinear(nn.Linear):
        def forward(self, input: "Tensor") -> "Tensor":
            cosine = nn.functional.linear(
                nn.functional.normalize(input, dim=-1), nn.functional.normalize(self.weight, dim=-1)
            )
            return cosine / backbone.temperature

    return CosineLinear(feature_size, num_classes, bias=False)


def save_backbone(folder: Path, backbone: Backbone, network: "nn.Module") -> None:
    """Writes the weights and then the description; each file is whole or absent.

    A linear head without a bias gets a bias of zeros. The networks of timm and torchvision have one, so they can load
    the file as it is.
    """
    import torch
    from safetensors.torch import save_file

    weights = {name: tensor.contiguous().cpu() for name, tensor in network.state_dict().items()}
    backbone = replace(backbone, feature_size=feature_size(network))
    for name, head in heads_of(network).items():
        if backbone.head == "linear" and head.bias is None:
            weights[f"{name}.bias"] = torch.zeros(head.out_features)
    if backbone.head == "linear" and backbone.classes:
        backbone = replace(backbone, head_bias=True)
    scratch = folder / f".{WEIGHTS}.tmp"
    save_file(weights, scratch)
    scratch.replace(folder / WEIGHTS)
    scratch = folder / f".{DESCRIPTION}.tmp"
    scratch.write_text(json.dumps(asdict(backbone), indent=1) + "\n", encoding="utf-8")
    scratch.replace(folder / DESCRIPTION)


def load_backbone(run: Path) -> "tuple[Backbone, nn.Module]":
    """Loads an exported network with its weights, in evaluation mode.

    Raises:
        UserError: the run does not exist or is not finished, or its files are broken.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (run / DESCRIPTION).is_file():
        raise UserError(
            f"no trained backbone in '{run}' (no {DESCRIPTION}); train one with fakeit-train, or let it finish"
        )
    try:
        backbone = read_description((run / DESCRIPTION).read_text(encoding="utf-8"))
        network = build_network(backbone)
        network.load_state_dict(load_file(run / WEIGHTS))
    except (OSError, SafetensorError, RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"the backbone in '{run}' cannot be loaded ({first_line(error)}); train it again") from None
    return backbone, network.eval()


def read_description(text: str) -> Backbone:
    """Parses the content of a `backbone.json`."""
    fields = json.loads(text)
    for name in ("mean", "std", "classes", "class_names"):
        fields[name] = tuple(fields.get(name, ()))
    return Backbone(**fields)


def pretrained_weights(backbone: Backbone, library: str) -> "dict[str, Tensor]":
    """Returns the state dict of the weights that timm or torchvision publishes for `backbone.arch`.

    Raises:
        UserError: there are none, or they cannot be downloaded.
    """
    return dict(_pretrained(replace(backbone, library=library)).state_dict())


def pretrained_network(
    library: str, arch: str, weights: str = "", arch_options: "dict[str, Any] | None" = None
) -> "tuple[nn.Module, dict[str, Any]]":
    """Returns a network with published weights, and the `Backbone` fields of the pixels that it was trained with.

    These fields include the input size only if the network accepts no other.

    Args:
        library: torchvision or timm.
        arch: Name of the network in its library.
        weights: Name of the weights, torchvision's ("IMAGENET1K_V1") or timm's ("a1_in1k"); "" takes the default.
        arch_options: Keyword arguments for the library's constructor.

    Raises:
        UserError: there are none, or they cannot be downloaded.
    """
    if library == "timm" and weights:
        arch, weights = f"{arch}.{weights}", ""
    network = _pretrained(Backbone(library=library, arch=arch, arch_options=arch_options or {}), weights)
    described = getattr(network, "pretrained_cfg", {}) or _torchvision_pixels(library, arch, weights)
    found: dict[str, Any] = {name: tuple(described[name]) for name in ("mean", "std") if name in described}
    if described.get("fixed_input_size"):
        found["input_size"] = int(described["input_size"][-1])
    return network, found


def _torchvision_pixels(library: str, arch: str, weights: str) -> dict[str, Any]:
    """Returns the mean and the standard deviation of the pixels that torchvision's weights were trained with."""
    if library != "torchvision":
        return {}
    import torchvision

    enum = torchvision.models.get_model_weights(arch)
    preset = (enum[weights] if weights else enum.DEFAULT).transforms()
    return {name: getattr(preset, name) for name in ("mean", "std") if len(getattr(preset, name, ())) == 3}


def _pretrained(backbone: Backbone, weights: str = "") -> "nn.Module":
    try:
        return _create(backbone, pretrained=weights or True)
    except OSError as error:
        raise UserError(
            f"{backbone.library}'s weights of '{backbone.arch}' cannot be loaded ({first_line(error)}); "
            "give a file of weights"
        ) from None


def _create(backbone: Backbone, *, pretrained: bool | str = False) -> "nn.Module":
    if backbone.library not in LIBRARIES:
        raise UserError(f"unknown library '{backbone.library}'; choose from {', '.join(LIBRARIES)}")
    try:
        if backbone.library == "timm":
            import timm

            return cast(
                "nn.Module", timm.create_model(backbone.arch, pretrained=bool(pretrained), **backbone.arch_options)
            )
        import torchvision

        weights = "DEFAULT" if pretrained is True else pretrained or None
        return cast("nn.Module", torchvision.models.get_model(backbone.arch, weights=weights, **backbone.arch_options))
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or backbone.library, "train") from None
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{backbone.library} cannot build '{backbone.arch}' ({error}); choose another arch") from None
