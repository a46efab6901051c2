"""One optimizer step of one rank: forward and backward passes of all micro-batches, the update, and the average."""

import hashlib
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fakeit_train.checkpoint import State
from fakeit_train.config import TrainConfig
from fakeit_train.data.loader import Batch
from fakeit_train.distributed import World
from fakeit_train.optimizer import set_rate
from fakeit_train.precision import precision_on
from fakeit_train.schedules import ema_decay, warm_up_cosine


def _seed(seed: int, step: int, rank: int) -> int:
    """Returns a 63-bit seed, a BLAKE2b hash of the arguments."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=8).digest(), "big") >> 1


class TrainStep:
    """Takes steps; between them it keeps nothing but `state` and what the last step measured."""

    def __init__(self, config: TrainConfig, world: World, state: State, num_steps: int) -> None:
        self.config, self.world, self.state, self.num_steps = config, world, state, num_steps
        self.network, self.optimizer = state.network, state.optimizer
        self.scaler, self.average = state.scaler, state.average
        self.peak = config.optim.peak(config.data.batch_size)
        self.metrics: dict[str, Tensor] = {}
        """This rank's share of the mean over the global batch of the last step, by name."""
        self.gradient_norm: Tensor | None = None
        """L2 norm of the last step's gradient over all parameters, before it was clipped; None if it was not measured."""
        self.parallel = world.wrap(state.objective, config).train()
        if config.optim.layers == "head":
            # The statistics of a frozen network's batch norm do not change either.
            self.network.eval()
        if config.compile:
            self.parallel.compile()
        precision = precision_on(world.device, config.precision)
        dtype = torch.bfloat16 if precision == "float32" else getattr(torch, precision)
        self.autocast = torch.autocast(world.device.type, dtype, enabled=precision != "float32")

    def __call__(self, step: int, batch: Batch) -> tuple[Tensor, float]:
        """Takes one optimizer step; returns this rank's share of the mean loss, and the learning rate."""
        optim = self.config.optim
        # This seeds dropout.
        torch.manual_seed(_seed(self.config.data.seed, step, self.world.rank))
        rate = warm_up_cosine(step, self.num_steps, self.peak, optim.warm_up, optim.min_learning_rate)
        set_rate(self.optimizer, rate)
        self.state.objective.before_step(step, self.num_steps)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.backward(batch)
        self.scaler.unscale_(self.optimizer)
        self.gradient_norm = None
        if optim.clip_norm:
            self.gradient_norm = nn.utils.clip_grad_norm_(self.state.objective.parameters(), optim.clip_norm)
        elif (step + 1) % self.config.log_every == 0:
            gradients = [one.grad for one in self.state.objective.parameters() if one.grad is not None]
            self.gradient_norm = nn.utils.get_total_norm(gradients)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.state.objective.after_step()
        if self.average:
            decay = ema_decay(step, optim.ema, has_warm_up=optim.ema_warm_up)
            self.average.multi_avg_fn = get_ema_multi_avg_fn(decay)
            self.average.update_parameters(self.network)
        return loss, rate

    def backward(self, batch: Batch) -> Tensor:
        """Accumulates the gradients of this rank's slice of the batch; returns its share of the mean loss."""
        device, config = self.world.device, self.config
        num_micro_batches = config.optim.accumulation
        tensors = (batch.labels, batch.prompt_ids, *batch.crops)
        micro_batches = zip(*(tensor.tensor_split(num_micro_batches) for tensor in tensors), strict=True)
        total = torch.zeros((), device=device)
        self.metrics = {}
        for number, some in enumerate(micro_batches, 1):
            labels, prompt_ids, *crops = (tensor.to(device, non_blocking=True) for tensor in some)
            with self.world.without_averaging(self.parallel) if number < num_micro_batches else nullcontext():
                with self.autocast:
                    loss, metrics = self.parallel(crops, labels, prompt_ids)
                loss = loss / config.data.batch_size
                # Data parallelism averages gradients over ranks; the factor makes that a sum.
                self.scaler.scale(loss * self.world.size).backward()
            total += loss.detach()
            for name, value in metrics.items():
                self.metrics[name] = self.metrics.get(name, 0) + value / config.data.batch_size
        return total
