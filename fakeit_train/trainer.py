"""READ FIRST. A training run: batches in their order, through the network, to an exported backbone.

The run directory holds `config.json`, `metrics.jsonl`, `checkpoint/` and, at the end, `backbone.safetensors` and
`backbone.json`. Whatever interrupts it, `--resume` goes on with the next batch of the same sequence.
"""

import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from builders.format.backbone import build_network, head_of, save_backbone
from builders.format.errors import UserError
from builders.format.open_clone import Clone, open_clone
from fakeit_train.checkpoint import State, load_checkpoint, make_state, save_checkpoint
from fakeit_train.config import TrainConfig
from fakeit_train.data import STOP_SIGNALS, Batch, OrderSampler, make_loader, make_order
from fakeit_train.distributed import World, join_world
from fakeit_train.losses import multi_crop_cross_entropy
from fakeit_train.model import MultiCropNetwork
from fakeit_train.optim import make_optimizer, set_rate
from fakeit_train.prefetch import Prefetcher, check_cache
from fakeit_train.schedules import warm_up_cosine

CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
FREE_SETTINGS = (
    "checkpoint_every", "log_every", "log_keys", "data.num_workers", "data.cache_dir", "data.cache_gib",
)  # fmt: skip
"""Settings that a resumed run may change."""


@dataclass(frozen=True)
class Outcome:
    step: int
    num_steps: int
    signal: int = 0
    """The signal that stopped the run, 0 for none."""

    @property
    def is_finished(self) -> bool:
        return self.step == self.num_steps


def train(config: TrainConfig, data: str, out: Path, *, resume: bool = False) -> Outcome:
    """Trains on a clone and exports the backbone; under torchrun, in several processes.

    Raises:
        UserError: the clone cannot be opened, or the output holds another run, or this one without `resume`.
    """
    with join_world() as world:
        clone = _open_data(data, config, world)
        names, trained_on = tuple(clone.manifest.label_names), clone.manifest.recipe["name"]
        config = replace(config, backbone=replace(config.backbone, classes=names, trained_on=trained_on))
        order = make_order(clone, config)
        check_cache(clone, order, world)
        num_steps = config.num_epochs * order.batches_per_epoch
        if config.data.batch_size < 2 * world.size:
            raise UserError(
                f"a batch of {config.data.batch_size} is too small for {world.size} processes; two images each at least"
            )
        if world.is_main:
            _open_run(config, clone, out, resume)
        world.barrier()
        torch.manual_seed(config.data.seed)
        network = build_network(config.backbone).to(world.device).to(memory_format=torch.channels_last)
        state = make_state(network, make_optimizer(network, config.optim), config, world.device.type)
        start = load_checkpoint(out / "checkpoint", state)
        if world.is_main:
            _forget_after(start, out)
        world.barrier()
        run = _Run(config, world, state, out, num_steps)
        prefetcher = Prefetcher(clone, order, world, config.num_epochs)
        sampler = OrderSampler(order, start, num_steps, world.rank, world.size, prefetcher)
        outcome = run.steps(start, make_loader(clone, config, sampler))
        if outcome.is_finished and world.is_main:
            _export(config, state.learned, out)
        world.barrier()
    return outcome


def _open_data(data: str, config: TrainConfig, world: World) -> Clone:
    """The same version of the clone in all processes, whatever happens to its branch meanwhile."""
    clone = open_clone(data, config.data.cache) if world.is_main else None
    root = world.share(clone.root if clone else "")
    return clone or open_clone(root, config.data.cache)


class _Run:
    """What stays the same from step to step."""

    def __init__(
        self,
        config: TrainConfig,
        world: World,
        state: State,
        out: Path,
        num_steps: int,
    ) -> None:
        self.config, self.world, self.state = config, world, state
        self.network, self.optimizer = state.network, state.optimizer
        self.scaler, self.average = state.scaler, state.average
        self.out, self.num_steps = out, num_steps
        self.unchecked: dict[int, list[str]] = {}  # keys of the steps whose loss was not looked at yet
        self.parallel = world.wrap(MultiCropNetwork(self.network, config.backbone)).train()
        if config.compile:
            self.parallel.compile()
        precision = config.precision
        if precision == "auto":
            precision = "bfloat16" if world.device.type == "cuda" else "float32"
        dtype = torch.bfloat16 if precision == "float32" else getattr(torch, precision)
        self.autocast = torch.autocast(world.device.type, dtype, enabled=precision != "float32")
        # oneDNN's bfloat16 kernels give other sums from run to run on some CPUs, and now and then none that is finite.
        self.is_without_onednn = world.device.type == "cpu" and precision == "bfloat16"

    def steps(self, start: int, batches: Iterator[Batch]) -> Outcome:
        """Takes all steps from `start`, or fewer after a signal to stop."""
        step = start
        keys_path = self.out / f"keys-{self.world.rank}.jsonl"
        with (
            torch.backends.mkldnn.flags(enabled=False) if self.is_without_onednn else nullcontext(),
            _stop_signals() as stopped,
            self._progress(start) as bar,
            _step_log(self.out / METRICS_FILE, self.world.is_main) as metrics,
            _step_log(keys_path, self.config.log_keys) as log_keys,
        ):
            waited, since = 0.0, time.perf_counter()
            while step < self.num_steps and not self._agree(stopped):
                asked = time.perf_counter()
                batch = next(batches)
                waited += time.perf_counter() - asked
                loss, rate = self.step(step, batch)
                step += 1
                log_keys(step=step, keys=batch.keys)
                self.unchecked[step] = batch.keys
                bar.update(self.config.data.batch_size)
                is_saved = step % self.config.checkpoint_every == 0 or step == self.num_steps
                if is_saved or step % self.config.log_every == 0:  # a loss that is not finite is never saved
                    value = self._mean_loss(loss, step)
                    elapsed = time.perf_counter() - since
                    metrics(step=step, loss=value, learning_rate=rate, seconds=elapsed, waiting=waited / elapsed)
                    bar.set_postfix(loss=f"{value:.3f}", waiting=f"{waited / elapsed:.0%}")
                    waited, since = 0.0, time.perf_counter()
                if is_saved:
                    self._save(step)
            if start < step < self.num_steps and step % self.config.checkpoint_every:
                self._mean_loss(loss, step)
                self._save(step)
        return Outcome(step, self.num_steps, stopped[0] if stopped else 0)

    def step(self, step: int, batch: Batch) -> tuple[torch.Tensor, float]:
        """One optimizer step; the rank's share of the mean loss, and the learning rate."""
        optim = self.config.optim
        torch.manual_seed((self.config.data.seed << 40) + step * self.world.size + self.world.rank)  # for dropout
        rate = warm_up_cosine(step, self.num_steps, optim.learning_rate, optim.warm_up)
        set_rate(self.optimizer, rate)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._backward(batch)
        self.scaler.unscale_(self.optimizer)
        if optim.clip_norm:
            nn.utils.clip_grad_norm_(self.network.parameters(), optim.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average:
            self.average.update_parameters(self.network)
        return loss, rate

    def _backward(self, batch: Batch) -> torch.Tensor:
        """Adds up the gradients of the rank's part of the batch, and gives its share of the mean loss."""
        device, config = self.world.device, self.config
        num_parts = min(config.optim.accumulation, len(batch.labels))
        parts = zip(*(group.tensor_split(num_parts) for group in (batch.labels, *batch.crops)), strict=True)
        total = torch.zeros((), device=device)
        for number, (labels, *crops) in enumerate(parts, 1):
            with self.world.without_averaging(self.parallel) if number < num_parts else nullcontext():
                with self.autocast:
                    logits = self.parallel([group.to(device, non_blocking=True) for group in crops])
                loss = multi_crop_cross_entropy(
                    logits,
                    labels.to(device),
                    label_smoothing=config.label_smoothing,
                    group_weights=config.group_weights,
                )
                loss = loss / config.data.batch_size
                self.scaler.scale(loss * self.world.size).backward()  # data parallelism averages over the processes
            total += loss.detach()
        return total

    def _mean_loss(self, loss: torch.Tensor, step: int) -> float:
        """The loss of the global batch of the step that was just taken; one that is not finite ends the run."""
        value = float(self.world.sum(loss))
        if not math.isfinite(value):
            path = self.out / f"not-finite-{self.world.rank}.json"
            path.write_text(json.dumps(self.unchecked, indent=1) + "\n", encoding="utf-8")
            raise UserError(
                f"the loss is {value} after step {step}; the keys of the batches since it was last looked at are in "
                f"'{path}'; lower the learning rate, or look at them"
            )
        self.unchecked.clear()
        return value

    def _agree(self, stopped: list[int]) -> bool:
        """Whether any process was told to stop; all must leave the loop at the same step."""
        if self.world.size == 1:
            return bool(stopped)
        return bool(self.world.sum(torch.tensor(float(bool(stopped)), device=self.world.device)) > 0)

    def _save(self, step: int) -> None:
        if self.world.is_main:
            save_checkpoint(self.out / "checkpoint", step, self.state)

    def _progress(self, start: int) -> Any:
        batch_size = self.config.data.batch_size
        total, initial = self.num_steps * batch_size, start * batch_size
        return tqdm(total=total, initial=initial, unit="img", disable=None if self.world.is_main else True)


def _forget_after(start: int, out: Path) -> None:
    """Drops the log lines of steps that will be taken again, those of ranks that are no more among them."""
    for path in [out / METRICS_FILE, *out.glob("keys-*.jsonl")]:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= start]
        path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


@contextmanager
def _step_log(path: Path, is_wanted: bool) -> Iterator[Callable[..., None]]:
    """Writes a JSON line per call."""
    if not is_wanted:
        yield lambda **values: None
        return
    with path.open("a", encoding="utf-8") as file:

        def write(**values: Any) -> None:
            file.write(json.dumps(values) + "\n")
            file.flush()

        yield write


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """The signals received so far: the run is saved and ends well."""
    received: list[int] = []
    before = {number: signal.signal(number, lambda n, _: received.append(n)) for number in STOP_SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _open_run(config: TrainConfig, clone: Clone, out: Path, resume: bool) -> None:
    """Writes config.json, or checks it against the run that is being resumed."""
    path = out / CONFIG_FILE
    described = json.loads(json.dumps({**asdict(config), "clone_digest": clone.manifest.digest}))
    if path.is_file() or (out / "checkpoint").is_dir():
        if not resume:
            raise UserError(f"'{out}' already holds a run; add --resume to go on with it, or choose another --out")
        try:
            old = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"'{path}' cannot be read ({error}); choose another --out") from None
        differing = [name for name, value in _deciding(described).items() if _deciding(old).get(name) != value]
        if differing:
            raise UserError(f"'{out}' holds a run with other {', '.join(differing)}; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{CONFIG_FILE}.tmp")
    scratch.write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    scratch.replace(path)


def _deciding(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings that decide what is learned, by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        nested = _deciding(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        flat |= {key: item for key, item in nested.items() if key not in FREE_SETTINGS}
    return flat


def _export(config: TrainConfig, network: nn.Module, out: Path) -> None:
    backbone = replace(config.backbone, feature_size=head_of(network)[1].in_features)
    save_backbone(out, backbone, network.state_dict())
