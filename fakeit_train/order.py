"""The training order: which samples make up global batch t of an epoch.

Invariant: it is a function of (seed, epoch, global batch size, shard lengths, block size, number of groups) alone; not of
world size, worker count, where the shards lie, or interruptions. In an epoch every sample comes at most once, and fewer than
a global batch are left out, other ones each epoch.

Shards are shuffled, then samples within blocks of shards, by sorting on keys from SHAKE128. The sequence is cut into
`num_groups` equal runs, and every global batch takes an equal part of each: on as many nodes, each reads its own run's shards.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from builders.format.errors import UserError


@dataclass(frozen=True)
class Order:
    shard_lengths: tuple[int, ...]
    global_batch_size: int
    seed: int = 0
    block_size: int = 8
    """Shards whose samples are shuffled together."""
    num_groups: int = 1
    """`num_canonical_nodes` of the run."""

    def __post_init__(self) -> None:
        if self.global_batch_size < 1 or self.block_size < 1 or self.num_groups < 1:
            raise UserError("batch_size, block_size and num_canonical_nodes must each be at least 1")
        if self.global_batch_size % self.num_groups:
            raise UserError(
                f"batch size {self.global_batch_size} cannot be shared by {self.num_groups} canonical nodes"
            )
        if self.num_samples < self.global_batch_size:
            raise UserError(
                f"a batch of {self.global_batch_size} is more than the {self.num_samples} samples; lower data.batch_size"
            )

    @cached_property
    def num_samples(self) -> int:
        return sum(self.shard_lengths)

    @cached_property
    def batches_per_epoch(self) -> int:
        return self.num_samples // self.global_batch_size

    def global_batch(self, step: int) -> list[tuple[int, int]]:
        """(sample number, epoch) of each sample of the step-th global batch of the run, steps counted from 0."""
        epoch, batch = divmod(step, self.batches_per_epoch)
        part = self.global_batch_size // self.num_groups
        run = part * self.batches_per_epoch
        starts = _block_starts(self, epoch)
        samples: list[int] = []
        for group in range(self.num_groups):
            position, stop = group * run + batch * part, group * run + (batch + 1) * part
            while position < stop:  # block by block, mostly one
                block = int(np.searchsorted(starts, position, side="right")) - 1
                place = position - int(starts[block])
                taken = _block_samples(self, epoch, block)[place : place + stop - position]
                samples += taken.tolist()
                position += len(taken)
        return [(sample, epoch) for sample in samples]

    def shards_ahead(self, step: int, group: int, num_epochs: int) -> Iterator[int]:
        """The shards of a group's samples from the step-th global batch on, block after block to the run's end."""
        epoch, batch = divmod(step, self.batches_per_epoch)
        part = self.global_batch_size // self.num_groups
        run = part * self.batches_per_epoch
        position = group * run + batch * part
        for later in range(epoch, num_epochs):
            starts = _block_starts(self, later)
            first = int(np.searchsorted(starts, position, side="right")) - 1
            last = int(np.searchsorted(starts, (group + 1) * run - 1, side="right")) - 1
            shards = _shard_order(self, later)
            yield from map(int, shards[first * self.block_size : (last + 1) * self.block_size])
            position = group * run

    def __hash__(self) -> int:  # the generated one would hash every shard length at every look-up
        return hash((len(self.shard_lengths), self.num_samples, self.global_batch_size, self.seed, self.block_size))


def permutation(name: str, length: int) -> NDArray[np.int64]:
    """A permutation of 0 … length - 1 that its name alone decides: indices sorted by 64-bit keys from SHAKE128."""
    keys = np.frombuffer(hashlib.shake_128(name.encode()).digest(8 * length), dtype=">u8")
    return np.argsort(keys, kind="stable")


@lru_cache(maxsize=4)
def _shard_order(order: Order, epoch: int) -> NDArray[np.int64]:
    return permutation(f"{order.seed}/{epoch}/shards", len(order.shard_lengths))


@lru_cache(maxsize=4)
def _block_starts(order: Order, epoch: int) -> NDArray[np.int64]:
    """Position in the epoch of each block's first sample."""
    lengths = np.asarray(order.shard_lengths, dtype=np.int64)[_shard_order(order, epoch)]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return ends[: -1 : order.block_size]


@lru_cache(maxsize=256)
def _block_samples(order: Order, epoch: int, block: int) -> NDArray[np.int64]:
    """Sample numbers of a block in their shuffled order."""
    starts = np.concatenate([[0], np.cumsum(order.shard_lengths)])
    shards = _shard_order(order, epoch)[block * order.block_size : (block + 1) * order.block_size]
    numbers = np.concatenate([np.arange(starts[shard], starts[shard + 1]) for shard in shards])
    return numbers[permutation(f"{order.seed}/{epoch}/block/{block}", len(numbers))]
