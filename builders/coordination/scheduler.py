"""Runs a job: hands out shards to workers until all are finished or no worker is left, and skips shards of other runs.

`policy.py` decides what follows from failures. The loop in this module applies its decisions.
"""

import contextlib
import random
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TypeVar

from builders.coordination.failures import Failure, forget_failure, read_failures, write_failure
from builders.coordination.heartbeat import shards_of
from builders.coordination.job import Ended, Event, Images, Job, Report, Workers
from builders.coordination.output import made_shards
from builders.coordination.patience import retry_unreachable
from builders.coordination.policy import Decision, End, GiveUp, Policy, Replace, Requeue, Retire
from builders.errors import ReadableError
from builders.format.names import MAKING, SHARDS_PER_FOLDER, TARGET, staging_folder
from builders.generation.generate_shard import sidecar_name

Result = TypeVar("Result")

SECONDS_BETWEEN_LOOKS, MIN_PAUSE_FACTOR = 2.0, 10.0
"""Seconds between polls of other runs while no shard is free, and the least pause as a multiple of a poll's time."""
SECONDS_BETWEEN_LAST_LOOKS = 60.0
"""Seconds between polls of a run that does not wait for other runs, while one of its workers has nothing to do."""
MAX_HELPERS = 60
"""Expected number of runs that make shards of others at a time. To find such shards, a run lists every file in `_making`,
so of a thousand runs that end together only some do. If fewer runs are alive, each of them does."""
MAX_EXISTS = 10
"""Maximum number of shards to check by one request each; a listing returns a thousand names per request."""
SECONDS_OF_RATE = 120.0
"""Time window of the rate that `status` shows."""


def run_shards(job: Job, workers: Workers, clock: Callable[[], float] = time.monotonic) -> Report:
    """Has workers make the job's shards; returns the report of the run.

    Shards that another run works on are skipped until it has finished them or has ended.
    """
    return _Run(job, workers, clock).run()


class _Queue:
    """Shards that are still to be made. Those that other runs work on or have finished are skipped."""

    def __init__(self, job: Job, clock: Callable[[], float]) -> None:
        self.plan, self.heartbeat, self.storage = job.task.plan, job.heartbeat, job.heartbeat.storage
        self.todo, self.clock, self.next_poll = deque(job.shards), clock, 0.0
        self.waits_for_others = job.waits_for_others
        self.pause = SECONDS_BETWEEN_LOOKS if job.waits_for_others else SECONDS_BETWEEN_LAST_LOOKS
        self.own = set(job.shards[: job.num_own])
        self.luck = random.random()
        """Decides whether this run is among the ones that make shards of other runs."""
        self.has_listed = False
        """Whether the shards of other runs were looked up."""
        self.failed_before = {failure.shard for failure in read_failures(self.storage)}
        self.num_images_made = 0
        """Images of shards that other runs have finished since this run began."""
        self.num_empty_polls = 0
        self.is_finalized_elsewhere = False
        """Whether another run has finalized the clone meanwhile."""

    def next(self, busy: Collection[int] = ()) -> int | None:
        """Returns the next shard that is neither finished nor in progress, `busy` in this run; None if there is none now."""
        if not self.todo or self.clock() < self.next_poll:
            return None
        begun = time.monotonic()
        others = self.heartbeat.others()
        if not self.heartbeat.has_target and not self.has_target():
            return None
        taken, helps = shards_of(others), self.luck * len(others) < MAX_HELPERS
        while (shard := self._first_free(taken, helps)) is not None:
            if shard not in self.own and not self.has_listed:
                self._drop_made()
                self.has_listed = True
                continue
            if not self.storage.exists(sidecar_name(self.plan, shard)):
                return shard
            self._drop_made(shard)
            # A listing may not show the finished shard yet.
            taken.add(shard)
        # Each remaining shard is in progress in another run, or was; or it is left to other runs.
        if helps and (self.waits_for_others or (not busy and self._is_last())):
            self._drop_made()
        self.num_empty_polls += 1
        self.next_poll = self.clock() + max(self.pause, MIN_PAUSE_FACTOR * (time.monotonic() - begun))
        return None

    def _is_last(self) -> bool:
        """Whether no other run works on what is left, so that this run must check whether every shard is finished.

        This run first shows that it works on nothing. So of two runs that end at once, at least one is the last.
        """
        self.heartbeat.show(())
        in_progress = shards_of(self.heartbeat.others()).intersection(self.todo)
        # A run that was killed a moment ago may have finished them.
        return len(in_progress) <= MAX_EXISTS and all(
            self.storage.each(self.storage.exists, [sidecar_name(self.plan, shard) for shard in in_progress])
        )

    def _first_free(self, taken: set[int], helps: bool) -> int | None:
        """Returns the first shard that no run works on: one of this run's own, or else any if this run helps others."""
        own = next((shard for shard in self.todo if shard in self.own and shard not in taken), None)
        if own is not None or not helps:
            return own
        return next((shard for shard in self.todo if shard not in taken), None)

    def has_target(self) -> bool:
        """Checks whether the target still exists. If not, another run has finalized the clone."""
        is_there = self.storage.exists(TARGET)
        self.is_finalized_elsewhere = not is_there
        return is_there

    def drop_failed(self) -> list[Failure]:
        """Removes the shards that failed permanently in other runs since this run began; returns their failures."""
        found_now = read_failures(self.storage)
        theirs = {failure.shard: failure for failure in found_now if failure.shard not in self.failed_before}
        found = [theirs[shard] for shard in self.todo if shard in theirs]
        self.todo = deque(shard for shard in self.todo if shard not in theirs)
        return found

    def _drop_made(self, near: int | None = None) -> None:
        """Removes finished shards: by a listing of the folder of the shard `near`, or wherever they are."""
        folder, requested = MAKING, list(self.todo)
        if near is None and len(requested) <= MAX_EXISTS:
            names = [sidecar_name(self.plan, shard) for shard in requested]
            made = {
                s
                for s, is_there in zip(requested, self.storage.each(self.storage.exists, names), strict=True)
                if is_there
            }
            self._drop(made)
            return
        if near is not None:
            number = near // SHARDS_PER_FOLDER
            folder, requested = (
                staging_folder(near),
                [shard for shard in requested if shard // SHARDS_PER_FOLDER == number],
            )
        self._drop(made_shards(self.plan, self.storage, requested, folder))

    def _drop(self, made: set[int]) -> None:
        self.todo = deque(shard for shard in self.todo if shard not in made)
        self.num_images_made += self.plan.count_samples(made)


class _EndNow(BaseException):
    """Ends the run without waiting for shards in progress."""


class _Run:
    """State and loop of a run."""

    def __init__(self, job: Job, workers: Workers, clock: Callable[[], float]) -> None:
        self.job, self.workers, self.clock = job, workers, clock
        self.plan, self.storage = job.task.plan, job.heartbeat.storage
        self.policy = Policy(job.execution, is_begun=job.is_begun)
        self.queue = _Queue(job, clock)
        self.busy: dict[str, int] = {}
        self.images: dict[int, int] = {}
        """Images made so far of each shard in progress here."""
        self.num_images_done = self.num_images_reported = 0
        self.rate = deque([(clock(), 0)])
        self.failures: list[Failure] = []
        self.causes: list[str] = []
        self.end: End | None = None
        self.has_no_free_shard = False
        """Whether the last poll found no free shard."""

    def run(self) -> Report:
        with contextlib.suppress(_EndNow):
            self._loop()
        # The store may be gone.
        with contextlib.suppress(ReadableError, OSError):
            self.job.heartbeat.show(())
        is_left = bool(self.queue.todo or self.busy)
        return Report(
            failures=self.failures,
            causes=self.causes,
            has_given_up=is_left and (self.end is not None or not self.workers.has_any()),
            is_stopped=is_left and self.job.stop.is_requested and self.workers.has_any(),
            is_all_made=not is_left and not self.failures,
            is_finalized_elsewhere=self.queue.is_finalized_elsewhere,
            error=self.end.error if self.end else None,
        )

    def _loop(self) -> None:
        while True:
            if not self._is_ending():
                self._retry_unreachable(self._hand_out)
            if self._is_over():
                break
            self.workers.poll(0.2 if self.busy else 1.0, self._on_event)
            for worker, problem in self.policy.on_tick(self.clock()):
                if worker not in self.busy:
                    continue
                self.workers.replace(worker)
                self._on_event(Ended(worker, self.busy[worker], problem))
            self._report_progress()

    def _is_ending(self) -> bool:
        return (
            self.end is not None
            or self.job.stop.is_requested
            or self.queue.is_finalized_elsewhere
            or not self.workers.has_any()
        )

    def _is_over(self) -> bool:
        if self.busy:
            return False
        return self._is_ending() or not self.queue.todo or (self.has_no_free_shard and not self.job.waits_for_others)

    def _hand_out(self) -> None:
        """Gives every free worker a shard. May be called again after a store did not answer."""
        for worker in self.workers.free():
            num_polls = self.queue.num_empty_polls
            shard = self.queue.next(self.busy.values())
            if shard is None:
                self.job.heartbeat.show(self.busy.values())
                if self.queue.num_empty_polls > num_polls:
                    self.failures += self.queue.drop_failed()
                    self.has_no_free_shard = True
                return
            self.job.heartbeat.show([*self.busy.values(), shard])
            self.has_no_free_shard = False
            self.queue.todo.remove(shard)
            self.busy[worker] = shard
            self.images[shard] = 0
            self.workers.start(worker, shard, self.policy.on_start(worker, shard, self.clock()))

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Images):
            if (shard := self.busy.get(event.worker)) is not None:
                self.images[shard] += event.num_kept
                self._apply(self.policy.on_images(event.worker, *event.first_attempts, self.clock()))
                self._report_progress()
            return
        # The event may come from a process that was killed meanwhile.
        if self.busy.get(event.worker) != event.shard:
            return
        del self.busy[event.worker]
        self.queue.next_poll = 0.0
        self.images.pop(event.shard)
        if event.problem is None:
            self.num_images_done += self.plan.count_samples([event.shard])
            if event.shard in self.queue.failed_before:
                self._retry_unreachable(partial(forget_failure, self.storage, event.shard))
        elif not self._retry_unreachable(self.queue.has_target):
            self.policy.forget(event.worker)
            return
        self._apply(self.policy.on_end(event.worker, event.shard, event.problem))

    def _apply(self, decisions: Sequence[Decision]) -> None:
        for decision in decisions:
            match decision:
                case Requeue(shard, is_next):
                    (self.queue.todo.appendleft if is_next else self.queue.todo.append)(shard)
                case GiveUp(shard, problem, num_attempts):
                    write = partial(write_failure, self.storage, self.plan, shard, problem, num_attempts)
                    self.failures.append(self._retry_unreachable(write))
                case Replace(worker, cause):
                    self.job.on_warning(f"worker {worker} is replaced: {cause}")
                    self.workers.replace(worker)
                case Retire(worker, cause):
                    self.workers.retire(worker)
                    self.causes.append(f"worker {worker} is retired: {cause}")
                    self.job.on_warning(self.causes[-1])
                case End(error, cause, is_now):
                    self.end = decision
                    self.causes += [cause] if cause and error is None else []
                    if is_now:
                        raise _EndNow

    def _retry_unreachable(self, call: Callable[[], Result]) -> Result:
        return retry_unreachable(call, self.job.task.patience, is_over=lambda: self.job.stop.is_requested)

    def _report_progress(self) -> None:
        now = self.num_images_done + self.queue.num_images_made + sum(self.images.values())
        if now > self.num_images_reported:
            self.job.on_images(now - self.num_images_reported)
            self.num_images_reported = now
        self._update_summary()

    def _update_summary(self) -> None:
        """Updates images and rate in the heartbeat's summary for `status`; the heartbeat's own thread writes it."""
        when, made = self.clock(), self.policy.num_images
        if made > self.rate[-1][1]:
            self.rate.append((when, made))
        while when - self.rate[0][0] > SECONDS_OF_RATE and len(self.rate) > 2:
            self.rate.popleft()
        seconds = when - self.rate[0][0]
        self.job.heartbeat.summary |= {
            "num_images": sum(self.images.values()),
            "images_per_second": (made - self.rate[0][1]) / seconds if seconds > 0 else 0.0,
        }
