"""Opens the model to evaluate: a run of fakeit-train, a network of torchvision or timm, or a file with a state dict.

    RUN                              directory of fakeit-train (backbone.safetensors and backbone.json)
    torchvision/resnet50             torchvision's default weights; torchvision/resnet50@IMAGENET1K_V1 names other ones
    timm/resnet50.a1_in1k            timm's weights
    imagenet_100_sd.pth              a state dict, such as the paper's released checkpoints; only tensors are read
    dinov2                           DINOv2 small, an encoder of timm without a classifier (88 MB, Apache-2.0)
    pixels                           no network: the pixels themselves, as a baseline that needs no download

Networks with 1,000 outputs have ImageNet-1K's classes in the order of their wnids, networks with 100 outputs
ImageNet-100's."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builders.classes.imagenet import imagenet_names, read_imagenet100_wnids, read_parents
from builders.errors import UserError
from builders.networks.backbone import (
    DESCRIPTION,
    LIBRARIES,
    WEIGHTS,
    Backbone,
    build_network,
    load_backbone,
    pretrained_network,
    read_description,
)
from builders.networks.heads import feature_size, heads_of
from builders.networks.state_dict import misfit, read_state_dict
from fakeit_eval.reporting.results import as_file_name

if TYPE_CHECKING:
    from torch import nn

ARCH = "torchvision/resnet50"
"""Default architecture of a state dict: the paper's."""
PIXELS = "pixels"
PIXELS_SIDE = 32
DINOV2 = "dinov2"
DINOV2_ARCH = "vit_small_patch14_dinov2.lvd142m"
DINOV2_SIDE = 224
"""timm's default of 518 pixels takes five times as long; 224 is what DINOv2's authors evaluate at."""
NOTICES = {DINOV2: f"timm/{DINOV2_ARCH} is downloaded once: 88 MB, license Apache-2.0"}
"""What users should know before a model is opened."""


@dataclass(frozen=True, eq=False)
class Model:
    name: str
    """Name in tables of results."""
    backbone: Backbone
    sha256: str
    """Digest of the weights and of everything else in the model that a feature depends on."""
    out: Path
    """Folder whose subfolder `results` receives the results."""
    load: "Callable[[], nn.Module]"
    """Builds the network with its weights."""

    @property
    def trained_on(self) -> str:
        return self.backbone.trained_on

    @cached_property
    def network(self) -> "nn.Module":
        """The network in evaluation mode; it is loaded on first use."""
        return self.load().eval()


@dataclass(frozen=True, kw_only=True)
class FileNetwork:
    """What a state dict in a file does not say about its network."""

    arch: str = ARCH
    """torchvision/NAME or timm/NAME."""
    head: str = "linear"
    """Kind of its classifier: linear, or cosine (the cosine of feature and class vector, divided by a temperature)."""
    temperature: float = 0.1
    """Temperature of a cosine classifier."""

    def __post_init__(self) -> None:
        # Backbone checks head and temperature.
        Backbone(library="", arch="", head=self.head, temperature=self.temperature)


def open_model(spec: str, out: Path | None = None, network: FileNetwork = FileNetwork()) -> Model:
    """Opens a model.

    Args:
        spec: A run directory, torchvision/NAME[@WEIGHTS], timm/NAME[@WEIGHTS], or a file with a state dict.
        out: Where results go; by default the run itself, or `evaluations/<name>`.
        network: The network of a state dict in a file.

    Raises:
        UserError: there is no such run, network or file, or it cannot be read.
    """
    path = Path(spec)
    if spec == PIXELS and not path.exists():
        return _of_pixels(out)
    if spec == DINOV2 and not path.exists():
        return _of_dinov2(out)
    library, _, name = spec.partition("/")
    if library in LIBRARIES and name and not path.exists():
        return _of_library(spec, library, name, out)
    if path.is_file():
        return _of_file(path, network, out)
    return _of_run(path, out)


def _of_run(run: Path, out: Path | None) -> Model:
    if not (run / DESCRIPTION).is_file():
        raise UserError(
            f"no trained backbone in '{run}' (no {DESCRIPTION}); train one with fakeit-train, let it finish, "
            "or give torchvision/NAME, timm/NAME or a file with a state dict"
        )
    try:
        text = (run / DESCRIPTION).read_text(encoding="utf-8")
        with (run / WEIGHTS).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        backbone = read_description(text)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"the backbone in '{run}' cannot be loaded ({error}); train it again") from None
    return Model(str(run), backbone, _identity(sha256, backbone), out or run, lambda: load_backbone(run)[1])


def _of_library(spec: str, library: str, name: str, out: Path | None) -> Model:
    arch, _, weights = name.partition("@")
    return _of_network(spec, *pretrained_network(library, arch, weights), library, arch, weights, out)


def _of_pixels(out: Path | None) -> Model:
    """A network without weights whose features are the pixels of a small image, in 0 to 1."""
    from torch import nn

    size = 3 * PIXELS_SIDE**2
    network = nn.Flatten()
    pixels = Backbone(
        library="",
        arch=PIXELS,
        feature_size=size,
        input_size=PIXELS_SIDE,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        trained_on="nothing",
    )
    return Model(PIXELS, pixels, _identity("", pixels), out or _folder(PIXELS), lambda: network)


def _of_dinov2(out: Path | None) -> Model:
    try:
        network, preprocessing = pretrained_network("timm", DINOV2_ARCH, arch_options={"img_size": DINOV2_SIDE})
    except UserError as error:
        reason = str(error).rpartition(";")[0]
        raise UserError(f"{reason}; go online once, or name a run of fakeit-train or 'pixels' in its place") from None
    return _of_network(DINOV2, network, {**preprocessing, "input_size": DINOV2_SIDE}, "timm", DINOV2_ARCH, "", out)


def _of_network(
    spec: str,
    network: "nn.Module",
    preprocessing: dict[str, Any],
    library: str,
    arch: str,
    weights: str,
    out: Path | None,
) -> Model:
    heads = list(heads_of(network).values())
    num_outputs = heads[0].out_features if heads else 0
    classes = _classes(num_outputs)
    backbone = Backbone(
        library=library,
        arch=arch,
        head_bias=bool(heads) and heads[0].bias is not None,
        feature_size=feature_size(network),
        classes=classes,
        class_names=_class_names(classes),
        **preprocessing,
        trained_on=f"{library}'s {weights or 'weights'}",
    )
    sha256 = _state_digest(network)
    return Model(spec, backbone, _identity(sha256, backbone), out or _folder(spec), lambda: network)


def _of_file(path: Path, described: FileNetwork, out: Path | None) -> Model:
    library, _, name = described.arch.partition("/")
    found = read_state_dict(path)
    plain = build_network(Backbone(library=library, arch=name, classes=("",)))
    ((head, old), *_) = heads_of(plain).items()
    weight = found.get(f"{head}.weight")
    num_classes = len(weight) if weight is not None and weight.dim() == 2 else 0
    has_bias = f"{head}.bias" in found
    if described.head == "cosine" and has_bias:
        raise UserError(
            f"'{path}' has a classifier with a bias, but a cosine classifier has none; leave out --head cosine"
        )
    classes = _classes(num_classes)
    backbone = Backbone(
        library=library,
        arch=name,
        head=described.head,
        temperature=described.temperature,
        head_bias=has_bias,
        feature_size=old.in_features,
        classes=classes,
        class_names=_class_names(classes),
        trained_on=path.stem,
    )
    network = build_network(backbone)
    expected = network.state_dict()
    if reason := misfit(found, expected, []):
        raise UserError(
            f"'{path}' does not fit {described.arch}: {reason}; name the network with --arch torchvision/… or timm/…"
        )
    network.load_state_dict({**expected, **found})
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Model(str(path), backbone, _identity(sha256, backbone), out or _folder(str(path)), lambda: network)


def _classes(num_outputs: int) -> tuple[str, ...]:
    """Class ids by the number of outputs; if it fits neither ImageNet-1K nor ImageNet-100, outputs are numbered."""
    known = {1000: list(read_parents()), 100: sorted(read_imagenet100_wnids())}
    return tuple(known.get(num_outputs, [f"output_{number}" for number in range(num_outputs)]))


def _class_names(classes: tuple[str, ...]) -> tuple[str, ...]:
    names = imagenet_names()
    return tuple(names.get(identity, identity) for identity in classes)


def _identity(weights_sha256: str, backbone: Backbone) -> str:
    description = {name: value for name, value in asdict(backbone).items() if name != "trained_on"}
    return hashlib.sha256(f"{weights_sha256}\n{sorted(description.items())}".encode()).hexdigest()


def _state_digest(network: "nn.Module") -> str:
    total = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        total.update(name.encode() + tensor.contiguous().cpu().numpy().tobytes())
    return total.hexdigest()


def _folder(name: str) -> Path:
    return Path("evaluations") / as_file_name(name)
