"""What a training run is: frozen, checked, and changed only by `--set a.b=value`.

A config is a Python file with a `CONFIG` (in `configs/`, or anywhere), whose docstring is its lab note.
"""

import dataclasses
import importlib
import importlib.util
import json
import math
import re
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.errors import UserError, suggest
from builders.format.shard_cache import ShardCache
from builders.networks.backbone import Backbone
from builders.plugins import module_names
from builders.storage.cache_folder import cache_folder
from fakeit_train.crops.parameters import CropConfig, augmentation_crops
from fakeit_train.data.selection import Condition

UNQUOTED_COMMA = r"""(?:[^,'"]|'[^']*'|"[^"]*"|['"])+"""
"""What lies between two commas, those in quotes aside."""
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    batch_size: int = 256
    """Images of a global batch, over all processes."""
    seed: int = 0
    """Seed of the training order, the crops and the weights."""
    block_size: int = 8
    """Shards whose samples are shuffled together."""
    num_canonical_nodes: int = 1
    """Groups that the shards of an epoch are dealt to; fixed for a run."""
    num_workers: int = 4
    """Loader processes of each rank; 0 loads in the training process."""
    cache_dir: str = ""
    """Where shards of remote clones are kept, for all processes of a machine; "" is $FAKEIT_CACHE or ~/.cache/fakeit."""
    cache_gib: float = 64.0
    """How much of them."""
    weights: tuple[float, ...] = ()
    """Share of each clone in every batch; () takes all samples of all clones as one sequence."""
    scale: float = 0.0
    """Trains on the prefix that `fakeit-build make --scale` would have made; 0 for whole clones."""
    exclude: str = ""
    """File with the keys of samples that are left out, one a line."""
    where: tuple[str, ...] = ()
    """Conditions on metadata that samples meet, such as "nsfw != 1"."""
    keep_broken: bool = False
    """Whether to train on images that came out broken at every attempt: not finite, or of one flat color."""
    crops_on_device: bool = False
    """Whether crops are made in batches on the training device; the loader's processes only decode then."""

    def __post_init__(self) -> None:
        if self.num_workers < 0:
            raise UserError(f"data.num_workers is {self.num_workers}, but must be at least 0")
        if not 0 < self.cache_gib < math.inf:
            raise UserError(f"data.cache_gib is {self.cache_gib}, but must be more than 0")
        if not 0 <= self.scale < math.inf:
            raise UserError(f"data.scale is {self.scale}, but must be a number of at least 0")
        if self.weights and not (min(self.weights) > 0 and sum(self.weights) < math.inf):
            raise UserError(f"data.weights are {self.weights}, but must be numbers above 0")
        for condition in self.where:
            Condition.parse(condition)

    @property
    def cache(self) -> ShardCache:
        return ShardCache(Path(self.cache_dir) if self.cache_dir else cache_folder(), int(self.cache_gib * 2**30))


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    data: str = ""
    """Clone that the network is tested on while it trains; "" for none."""
    every: int = 0
    """Steps between tests; 0 tests at the end of each epoch. There is one at the run's end, too."""
    batch_size: int = 256
    """Images of a forward in each process."""

    def __post_init__(self) -> None:
        if self.every and not self.data:
            raise UserError("validation.every is set, but there is nothing to test on; add --val CLONE")
        if self.every < 0 or self.batch_size < 1:
            raise UserError(
                f"validation.every is {self.every} and validation.batch_size {self.batch_size}, but must be at least 0 and 1"
            )


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    learning_rate: float = 0.1
    """Peak learning rate for the configured `data.batch_size`. It does not follow the batch size: a batch of 1,024 instead of
    256 needs four times the rate by the paper's rule (0.1 x batch / 256)."""
    warm_up: float = 0.1
    """Share of the iterations over which the rate rises linearly; then it falls as a cosine."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 1e-4
    """L2 penalty on weights; biases and norm parameters have none."""
    accumulation: int = 1
    """Parts that a rank's share of the batch is taken in, one after the other, for want of memory."""
    clip_norm: float = 0.0
    """Largest norm of the gradient; 0 leaves it as it is."""
    ema: float = 0.0
    """Decay of the weights' moving average, which is exported then; 0 keeps none."""

    def __post_init__(self) -> None:
        for name in ("warm_up", "momentum", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"optim.{name} is {getattr(self, name)}, but must be at least 0 and below 1")
        if self.accumulation < 1:
            raise UserError(f"optim.accumulation is {self.accumulation}, but must be at least 1")
        for name in ("learning_rate", "weight_decay", "clip_norm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"optim.{name} is {getattr(self, name)}, but must be a number of at least 0")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    num_epochs: int = 100
    """Passes over the clone."""
    augmentation: str = "dino"
    """dino: all groups of `crops`; plain: one crop an image."""
    precision: str = "auto"
    """float32, bfloat16 or float16 (with a scaled loss); auto is bfloat16 on a GPU that computes in it, float16 on an
    older one, and float32 on a CPU."""
    compile: bool = False
    """Whether the network goes through torch.compile."""
    deterministic: bool = False
    """Whether a GPU gives the same bits each time: deterministic algorithms alone, a fixed cuBLAS workspace, no tuning."""
    init: str = ""
    """Weights to begin with: torchvision, timm, a run, or a file with a state dict; "" for fresh ones."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes."""
    crop_weights: tuple[float, ...] = ()
    """Weight in the loss of a crop of each group; () weighs every crop the same."""
    checkpoint_every: int = 500
    """Steps between checkpoints; one more is written at the end."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints are kept."""
    log_keys: bool = False
    """Whether to write the sample keys of every batch to keys-<rank>.jsonl."""
    log_to: tuple[str, ...] = ()
    """Where metrics go beside metrics.jsonl: tensorboard, wandb, trackio."""
    backbone: Backbone = Backbone(library="torchvision", arch="resnet50", input_size=224)
    """The network; its classes come from the data."""
    data: DataConfig = DataConfig()
    """Batches and their order."""
    optim: OptimConfig = OptimConfig()
    """SGD and its schedule."""
    crops: CropConfig = CropConfig()
    """What the network sees of an image."""
    validation: ValidationConfig = ValidationConfig()
    """Tests while it trains."""

    def __post_init__(self) -> None:
        for name in ("num_epochs", "checkpoint_every", "keep_checkpoints", "log_every"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, but must be at least 1")
        if self.precision not in PRECISIONS:
            raise UserError(f"unknown precision '{self.precision}'; choose from {', '.join(PRECISIONS)}")
        for logger in self.log_to:
            if logger not in logger_names():
                raise UserError(f"unknown logger '{logger}' in log_to; {suggest(logger, logger_names())}")
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"label_smoothing is {self.label_smoothing}, but must be at least 0 and below 1")
        num_kinds, weights = len(augmentation_crops(self.augmentation, self.crops).kinds), self.crop_weights
        if weights and (len(weights) != num_kinds or min(weights) < 0 or not 0 < sum(weights) < math.inf):
            raise UserError(f"crop_weights are {weights}, but must be {num_kinds} numbers from 0 on, not all of them 0")


def logger_names() -> list[str]:
    return module_names("fakeit_train.loggers")


def config_names() -> list[str]:
    return module_names("fakeit_train.configs")


def load_config(name: str, settings: list[str]) -> TrainConfig:
    """A config by name or by file, with `a.b=value` settings applied.

    Raises:
        UserError: no such config or field, or a value of another type.
    """
    if name.endswith(".py") and Path(name).is_file():
        spec = importlib.util.spec_from_file_location(Path(name).stem, name)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # whatever its author's Python says
            raise UserError(f"config '{name}' cannot be read ({type(error).__name__}: {error}); mend it") from None
    elif name in config_names():
        module = importlib.import_module(f"fakeit_train.configs.{name}")
    else:
        raise UserError(f"unknown config '{name}'; {suggest(name, config_names())}, or a .py file with a CONFIG")
    config = getattr(module, "CONFIG", None)
    if not isinstance(config, TrainConfig):
        raise UserError(f"config '{name}' has no CONFIG of type TrainConfig; see fakeit_train/configs/digits.py")
    for setting in settings:
        path, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f"--set {setting} has no value; write --set {setting}=…")
        config = _replace(config, path.split("."), value, path)
    return config


def _replace(config: Any, path: list[str], text: str, whole: str) -> Any:
    names = [f.name for f in dataclasses.fields(config)]
    if path[0] not in names:
        raise UserError(f"unknown setting '{whole}'; {suggest(path[0], names)}")
    value = getattr(config, path[0])
    if len(path) > 1:
        if not dataclasses.is_dataclass(value):
            raise UserError(f"setting '{'.'.join(whole.split('.')[: -len(path) + 1])}' has no parts; set it itself")
        return dataclasses.replace(config, **{path[0]: _replace(value, path[1:], text, whole)})
    kind = typing.get_type_hints(type(config))[path[0]]
    return dataclasses.replace(config, **{path[0]: _parse(kind, text, whole)})


def _parse(kind: Any, text: str, whole: str) -> Any:
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if kind in (int, float, str):
            return kind(text)
        if typing.get_origin(kind) is dict and isinstance(found := json.loads(text), dict):
            return found
        if kind == tuple[str, ...]:
            return tuple(piece.strip() for piece in re.findall(UNQUOTED_COMMA, text) if piece.strip())
        if typing.get_origin(kind) is tuple and set(typing.get_args(kind)) <= {float, Ellipsis}:
            values = tuple(float(piece) for piece in text.split(","))
            if len(values) == len(typing.get_args(kind)) or Ellipsis in typing.get_args(kind):
                return values
    except (ValueError, KeyError):
        pass
    name = getattr(kind, "__name__", str(kind)) if typing.get_origin(kind) is None else str(kind)
    raise UserError(f"setting '{whole}' is '{text}', but must be of type {name}") from None
