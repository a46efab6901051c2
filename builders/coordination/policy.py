"""Decides what follows from failures: a pure function of the run's events, without processes, disks or clocks.

    scope    example                                        consequence
    config   unknown model, refused setting, at the start   the run ends
    shard    a source image that cannot be read             the shard fails permanently, all others are made
    worker   CUDA error, full scratch, hung, dead           its process is replaced; in the end the worker is retired
    memory   a batch that does not fit                      --batch-size auto halves it; else the worker is retired
    store    no answer for longer than the patience         the run ends with status 75, finished tars are kept
    machine  a node of a cluster is lost                    the shard is made again, which does not count as a failure

A failure affects only what it concerns. The run itself ends only when no worker is left.
"""

import statistics
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import Literal

from builders.errors import ReadableError, UserError
from builders.recipes.execution import Execution

MAX_ATTEMPTS = 3
"""Attempts at a shard before it fails permanently. A worker's death counts only if no shard succeeds in between."""
MAX_FAILED_IN_A_ROW = 3
"""Consecutive failed attempts of one worker before it is retired."""
MAX_DEATHS = 30
"""Deaths of workers, with no shard finished in between, before the run ends."""
HUNG_AFTER, MIN_SECONDS, SECONDS_BEFORE_FIRST = 10.0, 600.0, 3600.0
"""A worker is hung after 10 times its median batch time, and at least 600 s; before its first batch after 3600 s."""
NUM_FIRST_IMAGES, MAX_BROKEN = 200, 0.5
"""If more than half of a new clone's first 200 images are broken, a setting is wrong and the run ends."""
MAX_LOW = 0.95
"""The same if checks reject more than this share, because an image would be made ten times."""

Scope = Literal["config", "shard", "worker", "memory", "store", "machine"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Why an attempt at a shard failed. It travels between processes."""

    scope: Scope
    """What is at fault. "machine" (a node was lost) does not count as a failure."""
    cause: str
    """One sentence for the user."""
    details: str = ""
    """Traceback of an unexpected error."""
    is_death: bool = False
    """Whether nothing is known except that the worker is gone."""
    is_final: bool = False
    """Whether the worker cannot recover, as from a full disk. It is then retired at once."""
    error: ReadableError | None = None
    """The error to raise if the problem ends the run."""
    batch_size: int = 0
    """Batch size of the failed attempt."""


@dataclass(frozen=True)
class Requeue:
    """Returns a shard to the queue: to its front, or to its end if the shard itself may be at fault."""

    shard: int
    is_next: bool


@dataclass(frozen=True)
class GiveUp:
    """Records a shard as permanently failed."""

    shard: int
    problem: Problem
    num_attempts: int


@dataclass(frozen=True)
class Replace:
    """Replaces a worker's process by a new one."""

    worker: str
    cause: str


@dataclass(frozen=True)
class Retire:
    """Stops giving shards to a worker."""

    worker: str
    cause: str


@dataclass(frozen=True)
class End:
    """Ends the run. Shards in progress are finished first, unless `is_now`."""

    error: ReadableError | None
    cause: str = ""
    is_now: bool = False


Decision = Requeue | GiveUp | Replace | Retire | End


@dataclass
class _Worker:
    execution: Execution
    shard: int | None = None
    since: float = 0.0
    """Time of the worker's last sign of life."""
    batch_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=50))
    num_failed: int = 0
    """Consecutive failed attempts."""


class Policy:
    """Decides what follows from each event. Times are in seconds, of any monotonic clock."""

    def __init__(self, execution: Execution, *, is_begun: bool) -> None:
        self.execution = execution
        self.is_proven = is_begun
        """Whether any shard of the clone is finished, which shows that the settings work."""
        self.num_images = self.num_broken = self.num_low = 0
        """Numbers of images, and of broken ones and ones that a check rejects among them, of first attempts."""
        self.workers: dict[str, _Worker] = {}
        self.attempts: Counter[int] = Counter()
        self.deaths: Counter[int] = Counter()

    def on_start(self, worker: str, shard: int, now: float) -> Execution:
        """Notes that a worker starts a shard; returns the execution that it must use."""
        known = self.workers.setdefault(worker, _Worker(self.execution))
        known.shard, known.since = shard, now
        return known.execution

    def on_images(self, worker: str, num_first: int, num_broken: int, num_low: int, now: float) -> list[Decision]:
        """Notes that a worker has made a batch. `num_first` counts images of first attempts; 0 is a sign of life."""
        known = self.workers[worker]
        if num_first:
            known.batch_seconds.append(now - known.since)
        known.since = now
        is_first = self.num_images < NUM_FIRST_IMAGES
        self.num_images += num_first
        self.num_broken += num_broken
        self.num_low += num_low
        is_decided = is_first and self.num_images >= NUM_FIRST_IMAGES and not self.is_proven
        if is_decided and self.num_broken > MAX_BROKEN * self.num_images:
            return [End(UserError(_broken(self.num_broken, self.num_images)), is_now=True)]
        if is_decided and self.num_low > MAX_LOW * self.num_images:
            return [End(UserError(_low(self.num_low, self.num_images)), is_now=True)]
        return []

    def forget(self, worker: str) -> None:
        """Notes that a worker's shard no longer matters."""
        self.workers[worker].shard = None

    def on_tick(self, now: float) -> list[tuple[str, Problem]]:
        """Returns the workers that hang, each with the problem of its attempt."""
        found = []
        for name, known in self.workers.items():
            limit = SECONDS_BEFORE_FIRST
            if known.batch_seconds:
                limit = max(MIN_SECONDS, HUNG_AFTER * statistics.median(known.batch_seconds))
            if known.shard is not None and now - known.since > limit:
                waited = f"{limit / 60:.0f} minutes" if limit >= 120 else f"{limit:.0f} seconds"
                cause = f"no new image for {waited}; the worker hung and was killed"
                found.append((name, Problem(scope="worker", cause=cause)))
        return found

    def on_end(self, worker: str, shard: int, problem: Problem | None) -> list[Decision]:
        """Notes that an attempt at a shard has ended; returns the decisions that follow."""
        known = self.workers[worker]
        known.shard = None
        if problem is None:
            self.is_proven = True
            known.num_failed = 0
            # After a success, the earlier deaths no longer prove that a shard kills its workers.
            self.deaths.clear()
            return []
        if problem.scope == "store" or (problem.scope == "config" and not self.is_proven):
            return [End(problem.error, problem.cause)]
        if problem.scope == "shard":
            return [self._give_up(shard, problem)]
        if problem.scope == "memory":
            return self._after_memory(worker, known, shard, problem)
        if problem.scope == "machine":
            return [Requeue(shard, is_next=True)]
        return self._after_failure(worker, known, shard, problem)

    def _after_memory(self, worker: str, known: _Worker, shard: int, problem: Problem) -> list[Decision]:
        if self.execution.is_auto and problem.batch_size > 1:
            known.execution = replace(known.execution, batch_size=problem.batch_size // 2)
            known.batch_seconds.clear()
            return [Requeue(shard, is_next=True)]
        return [Requeue(shard, is_next=True), Retire(worker, problem.cause)]

    def _after_failure(self, worker: str, known: _Worker, shard: int, problem: Problem) -> list[Decision]:
        if problem.scope == "config" or problem.is_final:
            return [Requeue(shard, is_next=True), Retire(worker, problem.cause)]
        known.num_failed += not problem.is_death
        (self.deaths if problem.is_death else self.attempts)[shard] += 1
        is_over = self.attempts[shard] + self.deaths[shard] >= MAX_ATTEMPTS
        found: list[Decision] = [self._give_up(shard, problem) if is_over else Requeue(shard, is_next=False)]
        if known.num_failed >= MAX_FAILED_IN_A_ROW:
            return [*found, Retire(worker, problem.cause)]
        # The new process loads the model first, which takes longer than a batch.
        known.batch_seconds.clear()
        found.append(Replace(worker, problem.cause))
        return [*found, End(None, problem.cause)] if self.deaths.total() >= MAX_DEATHS else found

    def _give_up(self, shard: int, problem: Problem) -> Decision:
        return GiveUp(shard, problem, max(1, self.attempts[shard] + self.deaths[shard]))


def _low(num_low: int, num_images: int) -> str:
    return (
        f"checks reject {num_low} of the first {num_images} images; lower the score that --check asks for (the images' json "
        "has it), or leave it out"
    )


def _broken(num_broken: int, num_images: int) -> str:
    return (
        f"{num_broken} of the first {num_images} images came out broken (not finite, or of one flat color); change the "
        "dtype, the guidance scale, the scheduler or the model"
    )
