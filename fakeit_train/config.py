"""The configuration of a training run, frozen and validated; `load_config` reads and changes it."""

import math
from dataclasses import dataclass
from pathlib import Path

from builders.errors import UserError, suggest
from builders.format.shard_cache import ShardCache
from builders.networks.backbone import Backbone
from builders.plugins import module_names
from builders.storage.cache_folder import cache_folder
from fakeit_train.crops.config import CropConfig, MixConfig, augmentation_crops
from fakeit_train.data.selection import Condition
from fakeit_train.objective_config import ContrastConfig, DistillationConfig, check_counts

LAYERS = ("all", "head")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    batch_size: int = 256
    """Global batch size: images per optimizer step over all ranks."""
    seed: int = 0
    """Seed of the training order, the crops and the initial weights."""
    block_size: int = 8
    """Number of shards whose samples are shuffled together."""
    num_canonical_nodes: int = 1
    """Number of disjoint shard streams per epoch (canonical nodes, as in MosaicML Streaming). Set it to the number of
    nodes. It must divide the batch size, and cannot change on resume."""
    siblings: int = 0
    """Number of images of a prompt that come into the same batch, for objectives that compare them; 0 for as many as the
    clone has (`fakeit-build make --images-per-prompt`)."""
    num_workers: int = 4
    """Loader worker processes of each rank; 0 loads in the training process."""
    cache_dir: str = ""
    """Cache folder for shards of remote clones, shared by all ranks of a machine. "" is $FAKEIT_CACHE, or else
    ~/.cache/fakeit."""
    cache_gib: float = 64.0
    """Maximum size of the shard cache, in GiB."""
    weights: tuple[float, ...] = ()
    """Relative weights of the clones in every batch; () trains on all samples of all clones as one sequence."""
    scale: float = 0.0
    """Train on the prefix of each clone that `fakeit-build make --scale` would have generated; 0 for whole clones."""
    exclude: str = ""
    """File with the keys of samples to leave out, one key per line."""
    where: tuple[str, ...] = ()
    """Conditions that the metadata of samples must meet, such as "nsfw != 1"."""
    keep_broken: bool = False
    """Whether to train on images that were broken in every attempt: not finite, or of one flat color."""

    def __post_init__(self) -> None:
        for name in ("num_workers", "siblings"):
            if getattr(self, name) < 0:
                raise UserError(f"data.{name} is {getattr(self, name)}, but must be at least 0")
        if not 0 < self.cache_gib < math.inf:
            raise UserError(f"data.cache_gib is {self.cache_gib}, but must be above 0")
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
    """Images for validation during training, a clone or whatever fakeit-eval takes; "" for no validation."""
    every: int = 0
    """Steps between validations; 0 validates after each epoch. The last step is always validated."""
    batch_size: int = 256
    """Images per forward pass on each rank."""
    knn: int = 0
    """Epochs between validations by k nearest neighbors on features; 0 for none."""
    linear_probe: int = 0
    """Epochs between validations by a linear probe on features (logistic regression); 0 for none."""
    num_known: int = 10_000
    """Number of training images from which k-NN and the linear probe learn, at random over the training data."""
    keep_best: bool = False
    """Whether to export the network that is best in validation to the run's subfolder `best`."""

    def __post_init__(self) -> None:
        given = [name for name in ("every", "knn", "linear_probe", "keep_best") if getattr(self, name)]
        if given and not self.data:
            raise UserError(f"validation.{given[0]} is set, but there are no validation images; add --val DATA")
        check_counts("validation", self, every=0, knn=0, linear_probe=0, batch_size=1, num_known=1)


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    name: str = "momentum"
    """Optimizer by timm's name: momentum (SGD without Nesterov), sgd (with it), adamw, muon, lamb, lion, …"""
    learning_rate: float = 0.1
    """Peak learning rate for the global batch size `data.batch_size`; see `scale_rate`."""
    scale_rate: bool = False
    """Whether `learning_rate` is that of 256 images, so that it grows with the batch size. The paper's rule is 0.1."""
    min_learning_rate: float = 0.0
    """Learning rate at the end of the cosine."""
    warm_up: float = 0.1
    """Fraction of the steps over which the learning rate rises linearly; it then falls as a cosine."""
    momentum: float = 0.9
    """Momentum of SGD and Muon."""
    betas: tuple[float, ...] = ()
    """Decays of the moments, for AdamW and its relatives; () for the optimizer's own."""
    weight_decay: float = 1e-4
    """Weight decay. Biases, normalization and position embeddings have none."""
    layer_decay: float = 1.0
    """Factor of the learning rate from each layer to the one before it, such as 0.75; 1 for the same rate everywhere."""
    layers: str = "all"
    """all, or head to train the classifier alone."""
    accumulation: int = 1
    """Gradient accumulation: micro-batches per optimizer step on each rank. More of them need less memory."""
    clip_norm: float = 0.0
    """Maximum L2 norm of the gradient over all parameters; 0 disables clipping."""
    ema: float = 0.0
    """Decay of the exponential moving average (EMA) of the weights; 0 for no EMA. Validation and export use the EMA."""
    ema_warm_up: bool = False
    """Whether the EMA's decay after n steps is at most (1 + n) / (10 + n), so that short runs forget their start."""

    def __post_init__(self) -> None:
        for name in ("warm_up", "momentum", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"optim.{name} is {getattr(self, name)}, but must be at least 0 and below 1")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"optim.betas are {self.betas}, but must be at least 0 and below 1")
        if self.accumulation < 1:
            raise UserError(f"optim.accumulation is {self.accumulation}, but must be at least 1")
        for name in ("learning_rate", "min_learning_rate", "weight_decay", "clip_norm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"optim.{name} is {getattr(self, name)}, but must be a number of at least 0")
        if not 0 < self.layer_decay <= 1:
            raise UserError(f"optim.layer_decay is {self.layer_decay}, but must be above 0 and at most 1")
        if self.layers not in LAYERS:
            raise UserError(f"unknown optim.layers '{self.layers}'; choose from {', '.join(LAYERS)}")

    def peak(self, batch_size: int) -> float:
        """Returns the peak learning rate for a global batch size."""
        return self.learning_rate * batch_size / 256 if self.scale_rate else self.learning_rate


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    num_epochs: int = 100
    """Number of epochs, that is passes over the training data."""
    objective: str = "cross_entropy"
    """What the run minimizes: a file in fakeit_train/objectives, or the path of one."""
    augmentation: str = "dino"
    """dino: all kinds of crops in `crops`. plain: one crop per image."""
    precision: str = "auto"
    """float32, bfloat16 or float16 (with loss scaling). auto selects bfloat16 on a GPU with native support for it,
    float16 on an older GPU, and float32 on a CPU."""
    compile: bool = False
    """Whether to compile the network with torch.compile. It does not go with synchronized batch norm on several GPUs."""
    sync_batch_norm: bool = True
    """Whether batch norm on several GPUs takes the statistics of the whole batch, as in the paper. Each layer then waits
    for the other GPUs."""
    timeout_minutes: float = 30.0
    """Minutes after which a rank that waits for the others gives up."""
    deterministic: bool = False
    """Whether runs on a GPU are repeatable bit by bit: with deterministic algorithms only, a fixed cuBLAS workspace,
    and no cuDNN autotuning."""
    init: str = ""
    """Initial weights: torchvision, timm, the folder of a run, or a file with a state dict; "" for random weights."""
    label_smoothing: float = 0.0
    """Fraction of the target that is spread evenly over all classes."""
    crop_weights: tuple[float, ...] = ()
    """Loss weight of a single crop of each kind, in the order of `crops.kinds`; () weighs all crops equally."""
    checkpoint_every: int = 500
    """Steps between checkpoints; the last step is always saved."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    keep_checkpoints: int = 2
    """Number of newest checkpoints to keep."""
    log_keys: bool = False
    """Whether to write the sample keys of every batch to keys-<rank>.jsonl."""
    log_to: tuple[str, ...] = ()
    """Loggers that receive the metrics besides metrics.jsonl: tensorboard, wandb, trackio."""
    backbone: Backbone = Backbone(library="torchvision", arch="resnet50", input_size=224)
    """The network; its classes come from the training data."""
    data: DataConfig = DataConfig()
    """Selection of samples, batches and their order."""
    optim: OptimConfig = OptimConfig()
    """The optimizer and its learning-rate schedule."""
    crops: CropConfig = CropConfig()
    """Crops and their augmentation."""
    mixing: MixConfig = MixConfig()
    """Mixup and cutmix."""
    contrast: ContrastConfig = ContrastConfig()
    """Settings of the objectives supervised_contrastive and multi_positive."""
    distillation: DistillationConfig = DistillationConfig()
    """Settings of the objective self_distillation."""
    validation: ValidationConfig = ValidationConfig()
    """Validation during training."""

    def __post_init__(self) -> None:
        for name in ("num_epochs", "checkpoint_every", "keep_checkpoints", "log_every"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, but must be at least 1")
        names = module_names("fakeit_train.objectives")
        if self.objective not in names and not (self.objective.endswith(".py") and Path(self.objective).is_file()):
            raise UserError(
                f"unknown objective '{self.objective}'; {suggest(self.objective, names)}, or a .py file with a function build"
            )
        if not 0 < self.timeout_minutes < 1e6:
            raise UserError(f"timeout_minutes is {self.timeout_minutes}, but must be above 0")
        if self.precision not in PRECISIONS:
            raise UserError(f"unknown precision '{self.precision}'; choose from {', '.join(PRECISIONS)}")
        for logger in self.log_to:
            if logger not in logger_names():
                raise UserError(f"unknown logger '{logger}' in log_to; {suggest(logger, logger_names())}")
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"label_smoothing is {self.label_smoothing}, but must be at least 0 and below 1")
        num_kinds, weights = len(self.crops_of_image.kinds), self.crop_weights
        if weights and (len(weights) != num_kinds or min(weights) < 0 or not 0 < sum(weights) < math.inf):
            raise UserError(
                f"crop_weights are {weights}, but must be {num_kinds} non-negative numbers, at least one above 0"
            )
        if self.mixing.is_on and num_kinds != 1:
            raise UserError(
                f"mixup and cutmix go with one kind of crops, and there are {num_kinds}; add crops.kinds.1.num_crops=0 or "
                "augmentation=plain"
            )

    @property
    def crops_of_image(self) -> CropConfig:
        """The crops of `crops` that the augmentation takes."""
        return augmentation_crops(self.augmentation, self.crops)


def logger_names() -> list[str]:
    return module_names("fakeit_train.loggers")
