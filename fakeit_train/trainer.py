"""READ FIRST. A training run: loads batches in the training order, trains the network, and exports the backbone.

The run's folder holds `config.json`, `metrics.jsonl`, `checkpoint/` and, at the end, `backbone.safetensors` and
`backbone.json`. After any interruption, `--resume` continues with the next batch of the same sequence.
"""

import json
import math
import time
import warnings
from collections.abc import Generator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from builders.command_line.progress import progress
from builders.errors import UserError
from builders.networks.backbone import Backbone, build_network, save_backbone
from builders.networks.heads import heads_of
from fakeit_train.checkpoint import State, load_checkpoint, make_state, newest_whole, save_checkpoint
from fakeit_train.config import TrainConfig
from fakeit_train.data.loader import Batch, OrderSampler, make_loader
from fakeit_train.data.mixture import Mixture, open_on_all_ranks
from fakeit_train.data.prefetch import Prefetcher, check_cache
from fakeit_train.distributed import World, join_world
from fakeit_train.init_weights import load_init_weights
from fakeit_train.metrics_log import CollapseWarning, Log, forget_after, open_metrics_log, silence, step_log
from fakeit_train.objectives.base import Traits, build_objective, check_settings, traits_of
from fakeit_train.optimizer import make_optimizer
from fakeit_train.peak_memory import memory_gib
from fakeit_train.precision import precision_on, prepare_torch
from fakeit_train.run_folder import best_score, describe_run, locked_run, open_run, save_best
from fakeit_train.signals import StopSignals
from fakeit_train.train_step import TrainStep
from fakeit_train.validation.base import Validations
from fakeit_train.validation.open_validations import open_validations


@dataclass(frozen=True)
class Outcome:
    step: int
    num_steps: int
    signal: int = 0
    """Signal that stopped the run; 0 for none."""
    num_broken: int = 0
    """Number of broken images in the clones, which were left out."""

    @property
    def is_finished(self) -> bool:
        return self.step == self.num_steps


def train(config: TrainConfig, data: list[str], out: Path, *, resume: bool = False) -> Outcome:
    """Trains on clones and exports the backbone; under torchrun, every rank calls this.

    Args:
        config: Configuration of the run.
        data: Folders or URLs of the clones.
        out: Folder of the run.
        resume: Whether to continue the run in `out`.

    Raises:
        UserError: a clone cannot be opened, or `out` holds another run, or holds this run and `resume` is false.
    """
    with join_world(config.timeout_minutes) as world, locked_run(out, world.is_main):
        _check_compile(config, world)
        check_settings(config, world.size)
        traits = traits_of(config.objective)
        mixture = open_on_all_ranks(data, config.data, world)
        config = replace(config, backbone=_describe_backbone(config, mixture, traits))
        order = mixture.order(config.data, deals_siblings=traits.deals_siblings)
        check_cache(mixture, order, world)
        validations = open_validations(config, mixture, order.batches_per_epoch, world)
        num_steps = config.num_epochs * order.batches_per_epoch
        if config.data.batch_size < 2 * world.size * config.optim.accumulation:
            raise UserError(
                f"data.batch_size {config.data.batch_size} is too small for {world.size} ranks with "
                f"{config.optim.accumulation} micro-batches each; give every micro-batch at least two images"
            )
        if config.mixing.is_on and config.data.batch_size % (2 * world.size):
            raise UserError(
                f"mixup and cutmix mix images two by two; give a data.batch_size that is divisible by {2 * world.size}, "
                f"not {config.data.batch_size}"
            )
        described = describe_run(config, mixture)
        if world.is_main:
            open_run(described, out, resume)
        world.barrier()
        prepare_torch(config, world.device.type)
        state, start = _load_state(config, world, out)
        if world.is_main:
            forget_after(start, out)
        world.barrier()
        run = _Run(config, world, state, out, num_steps, order.batches_per_epoch, validations)
        sampler = OrderSampler(
            order, start, num_steps, world.rank, world.size, Prefetcher(mixture, order, world, num_steps)
        )
        metrics_log = open_metrics_log(out, config.log_to, described, start) if world.is_main else silence()
        outcome = run.steps(start, make_loader(mixture, config, sampler), metrics_log)
        outcome = replace(outcome, num_broken=mixture.num_broken)
        if outcome.is_finished and world.is_main:
            save_backbone(out, config.backbone, state.learned)
        world.barrier()
    return outcome


def _load_state(config: TrainConfig, world: World, out: Path) -> tuple[State, int]:
    """Returns the state to train from and the number of its steps: the newest checkpoint, or the initial weights.

    Raises:
        UserError: the checkpoints or the initial weights cannot be used.
    """
    network = build_network(config.backbone)
    # The main rank decides where to resume, because folders may look different to other machines.
    start = int(world.share(str(newest_whole(out / "checkpoint") if world.is_main else 0)))
    if not start:
        fresh = load_init_weights(network, config.backbone, config.init)
        if fresh and world.is_main:
            warnings.warn(
                f"{', '.join(fresh)} are initialized randomly: '{config.init}' has other classes", stacklevel=3
            )
    if config.optim.layers == "head":
        network.requires_grad_(False)
        for head in heads_of(network).values():
            head.requires_grad_(True)
    objective = build_objective(network, config).to(world.device)
    objective.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    state = make_state(objective, make_optimizer(objective, config.optim), config, world.device.type)
    if start:
        load_checkpoint(out / "checkpoint", start, state)
    return state, start


def _describe_backbone(config: TrainConfig, mixture: Mixture, traits: Traits) -> Backbone:
    names = [clone.manifest.recipe["name"] for clone in mixture.clones]
    described = replace(config.backbone, trained_on=" + ".join(names))
    if not traits.has_classifier:
        return replace(described, classes=(), class_names=())
    return replace(described, classes=mixture.label_names, class_names=mixture.class_names)


def _check_compile(config: TrainConfig, world: World) -> None:
    if config.compile and config.sync_batch_norm and world.size > 1 and world.device.type == "cuda":
        raise UserError(
            "compile=true breaks up at every synchronized batch norm, which makes it slower; add sync_batch_norm=false, or "
            "leave compile out"
        )


class _Run:
    """The training loop of one rank."""

    def __init__(
        self,
        config: TrainConfig,
        world: World,
        state: State,
        out: Path,
        num_steps: int,
        steps_per_epoch: int,
        validations: Validations = Validations(()),
    ) -> None:
        self.config, self.world, self.state = config, world, state
        self.train_step = TrainStep(config, world, state, num_steps)
        self.steps_per_epoch = steps_per_epoch
        self.out, self.num_steps = out, num_steps
        self.validations = validations
        self.best = -1.0
        self.collapse = CollapseWarning(world.is_main)
        self.stopping = StopSignals()
        # Keys of the steps since the loss was last checked.
        self.unchecked: dict[int, list[str]] = {}
        # On some CPUs, oneDNN's bfloat16 kernels give different sums from run to run, and sometimes non-finite ones.
        self.is_without_onednn = (
            world.device.type == "cpu" and precision_on(world.device, config.precision) == "bfloat16"
        )

    def steps(self, start: int, batches: Generator[Batch], metrics_log: AbstractContextManager[Log]) -> Outcome:
        """Takes all steps from `start` on, or fewer if a stop signal arrives."""
        step = start
        self.best = best_score(self.out, self.config.validation.data, self.validations.main) if start else -1.0
        keys_log = step_log(self.out / f"keys-{self.world.rank}.jsonl") if self.config.log_keys else silence()
        with (
            torch.backends.mkldnn.flags(enabled=False) if self.is_without_onednn else nullcontext(),
            closing(batches),
            self.validations,
            self.stopping.received(),
            self._progress(start) as bar,
            metrics_log as metrics,
            keys_log as log_keys,
        ):
            waited, since, counted = 0.0, time.perf_counter(), step
            while step < self.num_steps and not self._is_stopped():
                requested_at = time.perf_counter()
                batch = next(batches)
                waited += time.perf_counter() - requested_at
                loss, rate = self.step(step, batch)
                step += 1
                log_keys(step=step, keys=batch.keys)
                self.unchecked[step] = batch.keys
                bar.update(self.config.data.batch_size)
                is_tested = self.validations.is_due(step, self.num_steps)
                is_saved = step % self.config.checkpoint_every == 0 or step == self.num_steps
                is_logged = step % self.config.log_every == 0
                # The loss is checked before every checkpoint, so that no checkpoint follows a non-finite loss.
                if is_logged or is_tested or is_saved:
                    value = self._mean_loss(loss, step)
                    totals = sorted(self.train_step.metrics.items())
                    found = {name: float(self.world.sum(total)) for name, total in totals}
                    if self.train_step.gradient_norm is not None:
                        found["gradient_norm"] = float(self.train_step.gradient_norm)
                    elapsed = time.perf_counter() - since
                    message = self._speed(step - counted, elapsed, waited)
                    metrics(
                        step=step, epoch=step / self.steps_per_epoch, loss=value, learning_rate=rate, **found,
                        **message,
                    )  # fmt: skip
                    bar.set_postfix_str(
                        f"loss {value:.3f}, waiting {message['waiting']:.0%}, memory {message['memory_gib']:.1f} GiB",
                        refresh=False,
                    )
                    self.collapse.look(found)
                    if is_tested and (scores := self._test()):
                        metrics(step=step, **scores)
                        self._keep_best(step, scores)
                    waited, since, counted = 0.0, time.perf_counter(), step
                if is_saved:
                    self._save(step)
            if start < step < self.num_steps and step % self.config.checkpoint_every:
                self._mean_loss(loss, step)
                self._save(step)
        signals = self.stopping.signals
        return Outcome(step, self.num_steps, signals[0] if signals else 0)

    def _speed(self, num_steps: int, elapsed: float, waited: float) -> dict[str, float]:
        """Returns speed, fraction of time spent waiting for data, and peak memory since the last line of metrics."""
        return {
            "seconds": elapsed,
            "images_per_second": num_steps * self.config.data.batch_size / elapsed,
            "waiting": waited / elapsed,
            "memory_gib": memory_gib(self.world.device),
        }

    def _test(self) -> dict[str, float]:
        """Validates the network that would be exported now; returns {} if a stop signal interrupts it."""
        with self.train_step.autocast:
            return self.validations.scores(self.state.learned, self.stopping.signals)

    def step(self, step: int, batch: Batch) -> tuple[Tensor, float]:
        """Takes one optimizer step; returns this rank's share of the mean loss, and the learning rate."""
        return self.train_step(step, batch)

    def _mean_loss(self, loss: Tensor, step: int) -> float:
        """Returns the mean loss of the global batch of the last step.

        Raises:
            UserError: the loss is not finite.
        """
        value = float(self.world.sum(loss))
        if not math.isfinite(value):
            path = self.out / f"not-finite-{self.world.rank}.json"
            path.write_text(json.dumps(self.unchecked, indent=1) + "\n", encoding="utf-8")
            raise UserError(
                f"the loss is {value} after step {step}; lower the learning rate, or inspect the batches since the "
                f"last check, whose keys are in '{path}'"
            )
        self.unchecked.clear()
        return value

    def _is_stopped(self) -> bool:
        """Returns true once any rank has received a stop signal, so that all ranks leave the loop at the same step.

        This is a gloo all-reduce on the CPU, so it does not synchronize with the GPU.
        """
        return bool(self.world.sum(torch.tensor(len(self.stopping.signals))) > 0)

    def _keep_best(self, step: int, scores: dict[str, float]) -> None:
        """Exports the network to the subfolder `best` if it is the best in validation so far."""
        score = scores.get(self.validations.main, -1.0)
        if self.config.validation.keep_best and self.world.is_main and score > self.best:
            self.best = score
            scored = {"step": step, "data": self.config.validation.data, **scores}
            save_best(self.out, self.config.backbone, self.state.learned, scored)

    def _save(self, step: int) -> None:
        if self.world.is_main:
            save_checkpoint(self.out / "checkpoint", step, self.state, num_kept=self.config.keep_checkpoints)

    def _progress(self, start: int) -> Any:
        batch_size = self.config.data.batch_size
        total, initial = self.num_steps * batch_size, start * batch_size
        return progress(total, initial=initial, is_shown=self.world.is_main)
