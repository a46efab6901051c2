"""Downloads the shards of remote clones ahead of the loader, in threads of the training process.

Threads follow the training order, at most one block ahead and within the cache budget. They skip shards that another
process is downloading. They wait for the first batch, which the loader reads by byte ranges, so that it has the full
bandwidth. Errors are ignored here: the loader requests the same shard and raises.
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
"""Maximum time in seconds that downloads wait for the first batch."""
SECONDS_BETWEEN_LOOKS = 0.2
"""Pause in seconds before checking again on shards that another process was downloading or that failed."""


class Prefetcher:
    """Downloads the shards of the current and the next block in background threads.

    Call `advance` before each step, `start` once the loader has forked its workers, and `begin` when the first batch is
    here.
    """

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
        """Sets the step whose batch the loader reads next."""
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
        """Starts the downloads, because the first batch is here; further calls do nothing."""
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
        """Returns the remote shards of this block and the next, as many as fit into the cache budget.

        The shards of the next batch come first.
        """
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
    """Downloads a shard; returns false if another process is downloading it or the cache has no room."""
    assert clone.cache is not None
    return clone.cache.fetch(clone.storage, shard, wait=False)


def nodes_of(order: BatchOrder, rank: int, world_size: int) -> range:
    """Returns the canonical nodes whose samples are in a rank's slice of every batch."""
    start = order.num_canonical_nodes * rank // world_size
    return range(start, max(start + 1, -(-order.num_canonical_nodes * (rank + 1) // world_size)))


def check_cache(data: Mixture, order: BatchOrder, world: World) -> None:
    """Checks that the cache can hold all shards that are shuffled together.

    In a smaller cache, every sample would download its shard again.

    Raises:
        UserError: the cache is too small.
    """
    cache = _cache_of(data)
    if cache is None:
        return
    num_shards = order.shards_at_once * _nodes_on_machine(order, world)
    sizes = sorted(shard.num_bytes for clone in _remote(data) for shard in clone.manifest.shards)
    needed = sum(sizes[-num_shards:]) + _metadata_bytes(data)
    if needed > cache.max_bytes:
        raise UserError(
            f"the shard cache is limited to {cache.max_bytes / 2**30:.3g} GiB, but the {num_shards} shards that are "
            f"shuffled together take up to {needed / 2**30:.3g} GiB with their metadata; "
            "raise data.cache_gib, or lower data.block_size"
        )


def _share(data: Mixture, order: BatchOrder, world: World) -> int:
    """Returns the bytes of the cache that this rank may fill.

    The ranks of a machine read the same canonical nodes, or divide them.
    """
    cache = _cache_of(data)
    if cache is None:
        return 0
    num_canonical_nodes = len(nodes_of(order, world.rank, world.size))
    room = cache.max_bytes - 2 * _metadata_bytes(data)
    return room * num_canonical_nodes // _nodes_on_machine(order, world)


def _remote(data: Mixture) -> list[Clone]:
    return [clone for clone in data.clones if clone.cache]


def _cache_of(data: Mixture) -> ShardCache | None:
    """Returns the cache that all remote clones share, or None if no clone is remote."""
    return next((clone.cache for clone in data.clones if clone.cache), None)


def _metadata_bytes(data: Mixture) -> int:
    """Returns the summed size of the largest metadata file of each remote clone.

    The cache holds it next to the shards that it describes.
    """
    return sum(max((file.num_bytes for file in clone.manifest.metadata), default=0) for clone in _remote(data))


def _nodes_on_machine(order: BatchOrder, world: World) -> int:
    first = world.rank - world.local_rank
    ranks = range(first, min(first + world.local_size, world.size))
    return len({node for rank in ranks for node in nodes_of(order, rank, world.size)})
