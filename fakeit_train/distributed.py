"""The ranks of a run: several processes under torchrun, or a single one. Other code talks to them through `World`."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from builders.errors import UserError

if TYPE_CHECKING:
    from fakeit_train.config import TrainConfig


@dataclass(frozen=True)
class World:
    rank: int
    size: int
    device: torch.device
    local_rank: int = 0
    """Rank among the ranks of this machine."""
    local_size: int = 1
    """Number of the run's ranks on this machine."""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def wrap(self, objective: nn.Module, config: "TrainConfig") -> nn.Module:
        """Returns the objective with gradients averaged over ranks and, on GPUs, synchronized batch norm."""
        if self.size == 1:
            return objective
        is_gpu = self.device.type == "cuda"
        is_synchronized = is_gpu and config.sync_batch_norm
        if is_synchronized:
            # torch's own conversion drops the activation of timm's BatchNormAct2d.
            from timm.layers import convert_sync_batchnorm

            objective = convert_sync_batchnorm(objective)
        return DistributedDataParallel(
            objective,
            device_ids=[self.device.index] if is_gpu else None,
            # Synchronized statistics are the same on all ranks anyway, but queues may not be.
            broadcast_buffers=not is_synchronized or _has_other_buffers(objective),
            # A user's objective may leave parameters out, which a static graph allows.
            find_unused_parameters=config.optim.accumulation > 1 and config.objective.endswith(".py"),
            gradient_as_bucket_view=True,
            # Without micro-batches, every backward pass is the same graph.
            static_graph=config.optim.accumulation == 1,
        )

    def sum(self, value: Tensor) -> Tensor:
        """Returns the sum of a tensor over all ranks."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def share_buffers(self, network: nn.Module) -> None:
        """Broadcasts the main rank's buffers (running statistics) to all ranks, because those are exported."""
        if self.size > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)

    def without_averaging(self, network: nn.Module) -> AbstractContextManager[None]:
        """Accumulates gradients on each rank without averaging; the next backward pass outside averages them."""
        return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()

    def share(self, text: str) -> str:
        """Returns the main rank's text on all ranks."""
        shared = [text]
        if self.size > 1:
            dist.broadcast_object_list(shared)
        return shared[0]

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


def _has_other_buffers(objective: nn.Module) -> bool:
    """Returns whether a module keeps state besides the statistics of batch norm."""
    of_norms = {
        f"{name}." for name, module in objective.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
    }
    saved = set(objective.state_dict()) - {name for name, _ in objective.named_parameters()}
    return any(name.rpartition(".")[0] + "." not in of_norms for name in saved)


@contextmanager
def join_world(timeout_minutes: float = 30.0) -> Iterator[World]:
    """Joins the ranks of the run, as torchrun's environment describes them, and yields this rank's `World`.

    Collectives use NCCL for GPU tensors and gloo for CPU tensors. A rank that waits longer than `timeout_minutes` for
    the others gives up.

    Raises:
        UserError: this rank has no GPU of its own, or another rank has ended early.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available():
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f"local rank {local_rank} has no GPU, because this machine has {torch.cuda.device_count()}; "
                f"give torchrun --nproc-per-node {torch.cuda.device_count()}"
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    if size > 1:
        is_gpu = device.type == "cuda"
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if is_gpu else "gloo",
            timeout=timedelta(minutes=timeout_minutes),
            device_id=device if is_gpu else None,
        )
    try:
        yield World(rank, size, device, local_rank, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    except RuntimeError as error:
        # gloo raises plain RuntimeErrors.
        if size == 1 or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise UserError(
            f"another rank of the run has ended, so rank {rank} ends too; the other rank's message gives the reason, "
            "and --resume continues from the last checkpoint"
        ) from None
    # After an error this is skipped: other ranks may be gone, and it would wait for them.
    if size > 1:
        dist.destroy_process_group()
