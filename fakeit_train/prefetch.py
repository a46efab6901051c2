"""Fetching the shards of a remote clone before they are needed, by threads of the training process.

They go along the training order, no further than into the next block and than the cache has room for, and leave to others
what others are fetching.
What fails here is not told: the loader asks for the same shard, and tells it.
"""

import contextlib
import itertools
import threading

from builders.format.errors import UserError
from builders.format.manifest import ShardEntry
from builders.format.open_clone import Clone
from fakeit_train.distributed import World
from fakeit_train.order import Order

NUM_THREADS = 4
SECONDS_BETWEEN_LOOKS = 0.2
"""At shards that another process was fetching."""


class Prefetcher:
    """Tell it the step by `advance`; `start` its threads once the loader's processes have been forked."""

    def __init__(self, clone: Clone, order: Order, world: World, num_epochs: int) -> None:
        self._clone, self._order, self._num_epochs = clone, order, num_epochs
        self._groups = groups_of(order, world.rank, world.size)
        self._max_bytes = _share(clone, order, world)
        self._window: list[ShardEntry] = []
        self._changed = threading.Condition()
        self._is_stopped = False

    def advance(self, step: int) -> None:
        """The loader is about to read the batch of this step."""
        if self._clone.cache is None:
            return
        window = self._wanted(step)
        with self._changed:
            if window != self._window:
                self._window = window
                self._changed.notify_all()

    def start(self) -> None:
        if self._clone.cache:
            for _ in range(NUM_THREADS):
                threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def _run(self) -> None:
        while not self._is_stopped:
            window, is_all_there = self._window, True
            for shard in window:
                if self._is_stopped or self._window is not window:
                    break
                with contextlib.suppress(UserError, OSError):
                    is_all_there &= self._fetch(shard)
            with self._changed:
                if self._window is window and not self._is_stopped:
                    self._changed.wait(None if is_all_there else SECONDS_BETWEEN_LOOKS)

    def _fetch(self, shard: ShardEntry) -> bool:
        """Whether the shard is there now, and not in another's hands."""
        cache = self._clone.cache
        assert cache is not None
        return cache.fetch(self._clone.storage, shard, wait=False)

    def _wanted(self, step: int) -> list[ShardEntry]:
        """The shards of this block and of the next, as many as fit."""
        ahead = [
            itertools.islice(self._order.shards_ahead(step, group, self._num_epochs), 2 * self._order.block_size)
            for group in self._groups
        ]
        in_turns = itertools.chain.from_iterable(itertools.zip_longest(*ahead))
        found, room = [], self._max_bytes
        for number in dict.fromkeys(number for number in in_turns if number is not None):
            shard = self._clone.manifest.shards[number]
            room -= shard.num_bytes
            if room < 0:
                break
            found.append(shard)
        return found


def groups_of(order: Order, rank: int, world_size: int) -> range:
    """The groups of shards that a rank's part of every batch comes from."""
    start = order.num_groups * rank // world_size
    return range(start, max(start + 1, -(-order.num_groups * (rank + 1) // world_size)))


def check_cache(clone: Clone, order: Order, world: World) -> None:
    """Whether the cache can hold what is shuffled together; with less, every sample would fetch its shard anew.

    Raises:
        UserError: it cannot.
    """
    if clone.cache is None:
        return
    num_shards = order.block_size * _groups_on_node(order, world)
    needed = sum(sorted(shard.num_bytes for shard in clone.manifest.shards)[-num_shards:]) + _metadata_bytes(clone)
    if needed > clone.cache.max_bytes:
        raise UserError(
            f"the cache may hold {clone.cache.max_bytes / 2**30:.3g} GiB, but the {num_shards} shards that are shuffled "
            f"together have up to {needed / 2**30:.3g} GiB with their metadata; raise data.cache_gib, or lower data.block_size"
        )


def _share(clone: Clone, order: Order, world: World) -> int:
    """Bytes of the cache that this rank may fill: the ranks of a node read the same groups, or divide them."""
    if clone.cache is None:
        return 0
    num_groups = len(groups_of(order, world.rank, world.size))
    room = clone.cache.max_bytes - 2 * _metadata_bytes(clone)
    return room * num_groups // _groups_on_node(order, world)


def _metadata_bytes(clone: Clone) -> int:
    """Of a metadata file, which lies in the cache beside the shards that it describes."""
    return max((file.num_bytes for file in clone.manifest.metadata), default=0)


def _groups_on_node(order: Order, world: World) -> int:
    first = world.rank - world.local_rank
    ranks = range(first, min(first + world.local_size, world.size))
    return len({group for rank in ranks for group in groups_of(order, rank, world.size)})
