"""Several processes under torchrun, or one without it; the rest of the code asks here which it is."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from builders.errors import UserError


@dataclass(frozen=True)
class World:
    rank: int
    size: int
    device: torch.device
    local_rank: int = 0
    """Rank among the processes of this machine."""
    local_size: int = 1
    """How many processes of the run are on this machine."""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network with gradients averaged over the processes, and batch norm over them on GPUs."""
        if self.size == 1:
            return network
        if self.device.type == "cuda":
            from timm.layers import convert_sync_batchnorm  # torch's own drops the activation of timm's BatchNormAct2d

            network = convert_sync_batchnorm(network)
            return DistributedDataParallel(network, device_ids=[self.device.index])
        return DistributedDataParallel(network)

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def share_buffers(self, network: nn.Module) -> None:
        """Gives all processes the main one's running statistics, which are those that are exported."""
        if self.size > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)

    def without_averaging(self, network: nn.Module) -> AbstractContextManager[None]:
        """Where gradients are added up in each process alone, for the last backward to average."""
        return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()

    def share(self, text: str) -> str:
        """The main process's text."""
        shared = [text]
        if self.size > 1:
            dist.broadcast_object_list(shared)
        return shared[0]

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


@contextmanager
def join_world() -> Iterator[World]:
    """This process's place, from torchrun's environment; tensors on GPUs go by nccl, others by gloo.

    Raises:
        UserError: another process has ended before its time.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available():
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f"process {local_rank + 1} of this machine has no GPU, for there are {torch.cuda.device_count()}; "
                "give torchrun --nproc-per-node as many"
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    if size > 1:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(rank, size, device, local_rank, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    except RuntimeError as error:  # gloo has no kind of its own
        if size == 1 or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise UserError(
            f"another process of the run has ended, so rank {rank} ends, too; what that one said is the reason, "
            "and --resume goes on from the last checkpoint"
        ) from None
    if size > 1:  # after an error the others may be gone, and this would wait for them
        dist.destroy_process_group()
