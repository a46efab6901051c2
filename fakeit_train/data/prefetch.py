"""Fetching the shards of remote clones before they are needed, by threads of the training process.

Threads go along the training order, no further than into the next block and than the cache has room for, and skip shards that
another process is fetching. The first batch, which comes by ranges, has the network to itself. Errors are ignored here: the
loader asks for the same shard, and raises them.
"""

import contextlib
import itertools
import threading

from builders.errors import ReadableError, UserError
from builders.format.manifest import ShardEntry
from builders.format.open_clone import Clone
from builders.format.shard_cache import ShardCache
from fakeit_train.data.mixture import Mixture
from fakeit_train.data.order import BatchOrder, rank_slice
from fakeit_train.distributed import World

NUM_THREADS = 4
SECONDS_ALONE = 1.0
"""The longest that the first batch has the network to itself."""
SECONDS_BETWEEN_LOOKS = 0.2
"""At shards that another process was fetching."""


class Prefetcher:
    """Tell it the step by `advance`; `start` its threads once the loader's processes have been forked, and say by `begin`
    that the first batch is here."""

    def __init__(self, data: Mixture, order: BatchOrder, world: World, num_steps: int) -> None:
        self._data, self._order, self._num_steps = data, order, num_steps
        self._nodes = nodes_of(order, world.rank, world.size)
        self._is_needed = _cache_of(data) is not None
        self._max_bytes = _share(data, order, world)
        self._window: list[tuple[Clone, ShardEntry]] = []
        self._rank, self._world_size = world.rank, world.size
        self._changed = threading.Condition()
        self._is_first_here = threading.Event()
        self._is_stopped = False

    def advance(self, step: int) -> None:
        """The loader is about to read the batch of this step."""
        if not self._is_needed:
            return
        window = self._wanted(step)
        with self._changed:
            if window != self._window:
                self._window = window
                self._changed.notify_all()

    def start(self) -> None:
        if self._is_needed:
            for _ in range(NUM_THREADS):
                threading.Thread(target=self._run, daemon=True).start()

    def begin(self) -> None:
        """The first batch is here; calls after the first do nothing."""
        self._is_first_here.set()

    def stop(self) -> None:
        with self._changed:
            self._is_stopped = True
            self._is_first_here.set()
            self._changed.notify_all()

    def _run(self) -> None:
        self._is_first_here.wait(SECONDS_ALONE)
        while not self._is_stopped:
            window, is_all_there = self._window, True
            for clone, shard in window:
                if self._is_stopped or self._window is not window:
                    break
                with contextlib.suppress(ReadableError, OSError):
                    is_all_there &= _fetch(clone, shard)
            with self._changed:
                if self._window is window and not self._is_stopped:
                    self._changed.wait(None if is_all_there else SECONDS_BETWEEN_LOOKS)

    def _wanted(self, step: int) -> list[tuple[Clone, ShardEntry]]:
        """The remote shards of this block and of the next, as many as fit; those of the next batch first, as it needs them."""
        batch = rank_slice(self._order.global_batch(step), self._rank, self._world_size)
        ahead = [
            itertools.islice(self._order.shards_ahead(step, node, self._num_steps), 2 * self._order.shards_at_once)
            for node in self._nodes
        ]
        in_turns = itertools.chain.from_iterable(itertools.zip_longest(*ahead))
        found, room = [], self._max_bytes
        next_ones = (self._data.shard_of(sample) for sample, _ in batch)
        for number in dict.fromkeys(n for n in itertools.chain(next_ones, in_turns) if n is not None):
            clone, shard = self._data.shard(number)
            if clone.cache is None:
                continue
            room -= shard.num_bytes
            if room < 0:
                break
            found.append((clone, shard))
        return found


def _fetch(clone: Clone, shard: ShardEntry) -> bool:
    """Whether the shard is there now, and not in another's hands."""
    assert clone.cache is not None
    return clone.cache.fetch(clone.storage, shard, wait=False)


def nodes_of(order: BatchOrder, rank: int, world_size: int) -> range:
    """The groups of shards that a rank's part of every batch comes from."""
    start = order.num_canonical_nodes * rank // world_size
    return range(start, max(start + 1, -(-order.num_canonical_nodes * (rank + 1) // world_size)))


def check_cache(data: Mixture, order: BatchOrder, world: World) -> None:
    """Whether the cache can hold what is shuffled together; with less, every sample would fetch its shard anew.

    Raises:
        UserError: it cannot.
    """
    cache = _cache_of(data)
    if cache is None:
        return
    num_shards = order.shards_at_once * _nodes_on_machine(order, world)
    sizes = sorted(shard.num_bytes for clone in _remote(data) for shard in clone.manifest.shards)
    needed = sum(sizes[-num_shards:]) + _metadata_bytes(data)
    if needed > cache.max_bytes:
        raise UserError(
            f"the cache may hold {cache.max_bytes / 2**30:.3g} GiB, but the {num_shards} shards that are shuffled "
            f"together have up to {needed / 2**30:.3g} GiB with their metadata; raise data.cache_gib, or lower data.block_size"
        )


def _share(data: Mixture, order: BatchOrder, world: World) -> int:
    """Bytes of the cache that this rank may fill: the ranks of a node read the same groups, or divide them."""
    cache = _cache_of(data)
    if cache is None:
        return 0
    num_canonical_nodes = len(nodes_of(order, world.rank, world.size))
    room = cache.max_bytes - 2 * _metadata_bytes(data)
    return room * num_canonical_nodes // _nodes_on_machine(order, world)


def _remote(data: Mixture) -> list[Clone]:
    return [clone for clone in data.clones if clone.cache]


def _cache_of(data: Mixture) -> ShardCache | None:
    """The one that all remote clones share, if any is remote."""
    return next((clone.cache for clone in data.clones if clone.cache), None)


def _metadata_bytes(data: Mixture) -> int:
    """Of a metadata file of each clone, which lies in the cache beside the shards that it describes."""
    return sum(max((file.num_bytes for file in clone.manifest.metadata), default=0) for clone in _remote(data))


def _nodes_on_machine(order: BatchOrder, world: World) -> int:
    first = world.rank - world.local_rank
    ranks = range(first, min(first + world.local_size, world.size))
    return len({node for rank in ranks for node in nodes_of(order, rank, world.size)})
