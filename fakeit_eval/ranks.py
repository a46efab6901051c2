"""The ranks of an evaluation under torchrun: all of them extract features, each a slice, and do the rest alike.

    torchrun --nproc-per-node 4 -m fakeit_eval probe RUN --data …

Rank 0 alone writes results and prints. The ranks need the same files: a shared cache folder, and --out on a shared disk.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from datetime import timedelta
from typing import Any

from builders.errors import UserError

RANK, WORLD_SIZE = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
TIMEOUT = timedelta(hours=24)
"""A rank may wait for the slowest slice of a large data set."""


@contextmanager
def joined() -> Iterator[None]:
    """Joins the ranks that torchrun started; a process that it did not start is the only rank.

    Raises:
        UserError: this rank has no GPU of its own.
    """
    if WORLD_SIZE == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    if torch.cuda.is_available():
        local, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= count:
            raise UserError(
                f"local rank {local} has no GPU, because this machine has {count}; give --nproc-per-node {count}"
            )
        torch.cuda.set_device(local)
    dist.init_process_group("gloo", timeout=TIMEOUT)
    with ExitStack() as quiet:
        if RANK:
            quiet.enter_context(redirect_stdout(quiet.enter_context(open(os.devnull, "w", encoding="utf-8"))))
        yield
    # After an error this is skipped: it would wait for ranks that may be gone.
    dist.barrier()
    dist.destroy_process_group()


def share(value: Any) -> Any:
    """Returns rank 0's value on all ranks."""
    shared = [value]
    if WORLD_SIZE > 1:
        import torch.distributed as dist

        dist.broadcast_object_list(shared)
    return shared[0]


def sum_of(value: int) -> int:
    """Returns the sum of a number over all ranks, once all have it."""
    if WORLD_SIZE == 1:
        return value
    import torch
    import torch.distributed as dist

    total = torch.tensor(value)
    dist.all_reduce(total)
    return int(total)


def barrier() -> None:
    """Waits until all ranks are here."""
    sum_of(0)
