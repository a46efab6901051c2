"""What ranks exchange within the forward pass of an objective. A run of one process exchanges nothing."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def is_alone() -> bool:
    return not (dist.is_available() and dist.is_initialized())


class _Gather(torch.autograd.Function):
    """Concatenates the tensors (n, …) of all ranks; the gradient of each comes from all ranks.

    torch's own function changes its name from version to version.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        ctx.rows = slice(dist.get_rank() * len(own), (dist.get_rank() + 1) * len(own))
        found = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(found, own.contiguous())
        return torch.cat(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.rows]


def gather(own: Tensor) -> Tensor:
    """Returns the tensors (n, …) of all ranks, one after the other; n is the same on all ranks. Gradients flow back."""
    found: Tensor = own if is_alone() else _Gather.apply(own)  # type: ignore[no-untyped-call]
    return found


def first_of(own: Tensor) -> int:
    """Returns the position of this rank's first row in what `gather` returns for a tensor (n, …)."""
    return 0 if is_alone() else dist.get_rank() * len(own)


def sum_over_ranks(own: Tensor) -> Tensor:
    """Returns the sum of a tensor over all ranks, without a gradient."""
    if is_alone():
        return own
    total = own.detach().clone()
    dist.all_reduce(total)
    return total
