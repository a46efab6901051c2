"""The training order: which samples make up global batch t of an epoch.

Invariant: the order depends only on seed, epoch, global batch size, shard lengths, block size and number of canonical
nodes. It does not depend on world size, number of workers, location of the shards, or interruptions. Every sample
occurs at most once per epoch. Fewer samples than a global batch are left out, different ones in each epoch.

Shards are shuffled, then samples within blocks of shards, by sorting on keys from SHAKE128. The sequence is cut into
equal runs of samples, one per canonical node (as in MosaicML Streaming). Every global batch takes an equal share of
each run. If there are as many nodes, each node therefore reads only the shards of its own run.

A weighted mixture of clones has one such order per clone. Every global batch takes a fixed share of each clone.

With siblings, shards that share prompts are shuffled as one, and a block is dealt so that siblings fall into one batch.
"""

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from builders.errors import UserError
from fakeit_train.data.siblings import Siblings, bundle, deal, siblings_of

EpochSample = tuple[int, int]
"""(sample number, epoch)."""


class BatchOrder(Protocol):
    """The interface of a training order for the loader; shards and samples are numbered across all clones."""

    @property
    def global_batch_size(self) -> int: ...
    @property
    def batches_per_epoch(self) -> int: ...
    @property
    def num_canonical_nodes(self) -> int: ...
    @property
    def shards_at_once(self) -> int:
        """Number of shards of a canonical node whose samples are shuffled together."""

    def global_batch(self, step: int) -> list[tuple[int, int]]:
        """Returns (sample number, epoch) of each sample in the global batch of a step; steps count from 0."""

    def shards_ahead(self, step: int, node: int, num_steps: int) -> Iterator[int]:
        """Yields the shards that a canonical node reads from step `step` to the end of the run, block by block."""


@dataclass(frozen=True)
class Order:
    """The training order of one sequence of shards."""

    shard_lengths: tuple[int, ...]
    global_batch_size: int
    seed: int | str = 0
    block_size: int = 8
    """Number of shards whose samples are shuffled together."""
    num_canonical_nodes: int = 1
    """Number of disjoint shard streams per epoch."""
    siblings: Siblings | None = None
    """How images of one prompt come together; None if they need not."""

    def __post_init__(self) -> None:
        if self.global_batch_size < 1 or self.block_size < 1 or self.num_canonical_nodes < 1:
            raise UserError("data.batch_size, data.block_size and data.num_canonical_nodes must each be at least 1")
        if self.global_batch_size % self.num_canonical_nodes:
            raise UserError(
                f"a batch of {self.global_batch_size} is not divisible by {self.num_canonical_nodes} canonical nodes; "
                "change data.batch_size or data.num_canonical_nodes"
            )
        if self.num_samples < self.global_batch_size:
            raise UserError(
                f"a batch of {self.global_batch_size} is larger than the {self.num_samples} samples; "
                "lower data.batch_size"
            )

    @cached_property
    def num_samples(self) -> int:
        return sum(self.shard_lengths)

    @cached_property
    def batches_per_epoch(self) -> int:
        return self.num_samples // self.global_batch_size

    @cached_property
    def units(self) -> tuple[range, ...]:
        """The consecutive shards that are shuffled as one: each shard alone, without siblings."""
        return self.siblings.units if self.siblings else tuple(range(i, i + 1) for i in range(len(self.shard_lengths)))

    @cached_property
    def units_per_block(self) -> int:
        return max(1, self.block_size // max(map(len, self.units)))

    @cached_property
    def shards_at_once(self) -> int:
        return self.units_per_block * max(map(len, self.units))

    @property
    def node_batch_size(self) -> int:
        return self.global_batch_size // self.num_canonical_nodes

    def global_batch(self, step: int) -> list[tuple[int, int]]:
        return [sample for node in range(self.num_canonical_nodes) for sample in self.node_batch(step, node)]

    def node_batch(self, step: int, node: int) -> list[tuple[int, int]]:
        """Returns a canonical node's share of the global batch of a step."""
        epoch, batch = divmod(step, self.batches_per_epoch)
        run = self.node_batch_size * self.batches_per_epoch
        starts = _block_starts(self, epoch)
        samples: list[int] = []
        position = node * run + batch * self.node_batch_size
        stop = position + self.node_batch_size
        # Most batches lie within one block.
        while position < stop:
            block = int(np.searchsorted(starts, position, side="right")) - 1
            first = position - int(starts[block])
            taken = _block_samples(self, epoch, block)[first : first + stop - position]
            samples += taken.tolist()
            position += len(taken)
        return [(sample, epoch) for sample in samples]

    def shards_ahead(self, step: int, node: int, num_steps: int) -> Iterator[int]:
        num_epochs = -(-num_steps // self.batches_per_epoch)
        epoch, batch = divmod(step, self.batches_per_epoch)
        run = self.node_batch_size * self.batches_per_epoch
        position = node * run + batch * self.node_batch_size
        for later in range(epoch, num_epochs):
            starts = _block_starts(self, later)
            first = int(np.searchsorted(starts, position, side="right")) - 1
            last = int(np.searchsorted(starts, (node + 1) * run - 1, side="right")) - 1
            for block in range(first, last + 1):
                yield from _block_shards(self, later, block)
            position = node * run

    def __hash__(self) -> int:
        # The generated method would hash every shard length at every cache lookup.
        return hash((len(self.shard_lengths), self.num_samples, self.global_batch_size, self.seed, self.block_size))


@dataclass(frozen=True)
class WeightedOrder:
    """The training order of several sequences of shards, each with its own order and its own epochs.

    An epoch of the run has as many samples as all sequences together.
    """

    orders: tuple[Order, ...]

    @cached_property
    def global_batch_size(self) -> int:
        return sum(order.global_batch_size for order in self.orders)

    @cached_property
    def batches_per_epoch(self) -> int:
        return sum(order.num_samples for order in self.orders) // self.global_batch_size

    @property
    def num_canonical_nodes(self) -> int:
        return self.orders[0].num_canonical_nodes

    @property
    def shards_at_once(self) -> int:
        return sum(order.shards_at_once for order in self.orders)

    @cached_property
    def _starts(self) -> list[tuple[int, int]]:
        """Returns the numbers of the first sample and the first shard of each sequence."""
        samples = itertools.accumulate((order.num_samples for order in self.orders), initial=0)
        shards = itertools.accumulate((len(order.shard_lengths) for order in self.orders), initial=0)
        return list(zip(samples, shards, strict=True))[:-1]

    def global_batch(self, step: int) -> list[tuple[int, int]]:
        return [sample for node in range(self.num_canonical_nodes) for sample in self._node_batch(step, node)]

    def _node_batch(self, step: int, node: int) -> list[EpochSample]:
        """Returns a canonical node's share of the global batch of a step.

        The samples of each clone are spread evenly, so that every rank and every micro-batch gets samples of each
        clone.
        """
        spread = []
        for which, (order, (start, _)) in enumerate(zip(self.orders, self._starts, strict=True)):
            node_batch = order.node_batch(step, node)
            spread += [
                ((2 * i + 1) / len(node_batch), which, start + n, epoch) for i, (n, epoch) in enumerate(node_batch)
            ]
        return [(number, epoch) for _, _, number, epoch in sorted(spread)]

    def shards_ahead(self, step: int, node: int, num_steps: int) -> Iterator[int]:
        ahead = [
            map(start.__add__, order.shards_ahead(step, node, num_steps))
            for order, (_, start) in zip(self.orders, self._starts, strict=True)
        ]
        in_turns = itertools.chain.from_iterable(itertools.zip_longest(*ahead))
        return (shard for shard in in_turns if shard is not None)


def weighted_order(lengths: list[tuple[int, ...]], weights: tuple[float, ...], whole: Order) -> WeightedOrder:
    """Returns an order in which the clones' shares of every batch are in proportion to `weights`.

    `lengths` has the shard lengths of each clone. `whole` is the order of all clones as one sequence.

    Raises:
        UserError: a clone's share is less than one sample per canonical node, or more than all samples of the clone.
    """
    shares = _apportion(whole.global_batch_size // whole.num_canonical_nodes, weights)
    if 0 in shares:
        raise UserError(
            f"weights {', '.join(f'{weight:g}' for weight in weights)} give clone {shares.index(0) + 1} no sample in a "
            f"batch of {whole.global_batch_size}; raise data.batch_size or that weight"
        )
    return WeightedOrder(
        tuple(
            replace(
                whole,
                shard_lengths=each,
                global_batch_size=share * whole.num_canonical_nodes,
                seed=f"{whole.seed}.{number}",
            )
            for number, (each, share) in enumerate(zip(lengths, shares, strict=True))
        )
    )


def _apportion(total: int, weights: tuple[float, ...]) -> list[int]:
    """Returns integers in proportion to the weights that add up to `total` (largest-remainder method)."""
    exact = [total * (weight / sum(weights)) for weight in weights]
    found = [int(share) for share in exact]
    by_remainder = sorted(range(len(weights)), key=lambda number: found[number] - exact[number])
    for number in by_remainder[: total - sum(found)]:
        found[number] += 1
    return found


def rank_slice(batch: list[EpochSample], rank: int, world_size: int) -> list[EpochSample]:
    """Returns a rank's slice of a global batch; the slices' sizes differ by at most one sample."""
    return batch[len(batch) * rank // world_size : len(batch) * (rank + 1) // world_size]


def permutation(name: str, length: int) -> NDArray[np.int64]:
    """Returns a permutation of 0 … length - 1 that depends only on `name`, by sorting on 64-bit keys from SHAKE128."""
    keys = np.frombuffer(hashlib.shake_128(name.encode()).digest(8 * length), dtype=">u8")
    return np.argsort(keys, kind="stable")


@lru_cache(maxsize=4)
def _unit_order(order: Order, epoch: int) -> NDArray[np.int64]:
    return permutation(f"{order.seed}/{epoch}/shards", len(order.units))


def _block_shards(order: Order, epoch: int, block: int) -> list[int]:
    """Returns the shards of a block."""
    units = _unit_order(order, epoch)[block * order.units_per_block : (block + 1) * order.units_per_block]
    return [shard for unit in units for shard in order.units[unit]]


@lru_cache(maxsize=4)
def _block_starts(order: Order, epoch: int) -> NDArray[np.int64]:
    """Returns the position in the epoch of each block's first sample."""
    firsts = [unit.start for unit in order.units]
    lengths = np.add.reduceat(np.asarray(order.shard_lengths, dtype=np.int64), firsts)[_unit_order(order, epoch)]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return ends[: -1 : order.units_per_block]


@lru_cache(maxsize=256)
def _block_samples(order: Order, epoch: int, block: int) -> NDArray[np.int64]:
    """Returns the sample numbers of a block in shuffled order."""
    starts = np.concatenate([[0], np.cumsum(order.shard_lengths)])
    shards, name = _block_shards(order, epoch, block), f"{order.seed}/{epoch}/block/{block}"
    numbers = np.concatenate([np.arange(starts[shard], starts[shard + 1]) for shard in shards])
    shuffled = permutation(name, len(numbers))
    if not order.siblings:
        return numbers[shuffled]
    prompts = np.concatenate([order.siblings.prompt_ids(shard) for shard in shards])
    count = order.siblings.count
    lists = bundle(siblings_of(numbers[shuffled], prompts[shuffled], count), count)
    lists = [lists[number] for number in permutation(f"{name}/siblings", len(lists))]
    return deal(lists, int(_block_starts(order, epoch)[block]), order.node_batch_size)
