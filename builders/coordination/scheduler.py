"""A run: shards handed out to workers, with an eye on what other runs are at, until all are made or no worker is left.

What follows from failures is decided in `policy.py`; this is the loop that carries it out.
"""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from builders.coordination.failures import Failure, forget_failure, read_failures, write_failure
from builders.coordination.heartbeat import shards_of
from builders.coordination.job import Ended, Event, Images, Job, Report, Workers
from builders.coordination.output import TARGET, made_shards, read_state
from builders.coordination.patience import retry_unreachable
from builders.coordination.policy import Decision, End, GiveUp, Policy, Replace, Requeue, Retire
from builders.errors import ReadableError
from builders.format.manifest import MAKING, SHARDS_PER_FOLDER, shard_name, staging_folder
from builders.generation.generate_shard import sidecar_name

Result = TypeVar("Result")

SECONDS_BETWEEN_LOOKS, PATIENCE = 2.0, 10.0
"""Between two looks at what other runs have made while nothing is free; at least so many times as long as a look takes."""
SECONDS_OF_RATE = 120.0
"""The rate that `status` shows is of this time."""


def run_shards(job: Job, workers: Workers, clock: Callable[[], float] = time.monotonic) -> Report:
    """Has workers make the job's shards.

    Shards that another run is at are passed over until it has made them or is no more.
    """
    return _Run(job, workers, clock).to_end()


class _Queue:
    """The shards that are still to be made, and what is known of what other runs do."""

    def __init__(self, job: Job, clock: Callable[[], float]) -> None:
        self.plan, self.heartbeat, self.storage = job.task.plan, job.heartbeat, job.heartbeat.storage
        self.todo, self.clock, self.next_look = deque(job.shards), clock, 0.0
        self.failed_before = {failure.shard for failure in read_failures(self.storage)}
        self.num_images_made = 0
        """Images of shards that other runs have made since this one began."""
        self.num_empty_looks = 0

    def next(self) -> int | None:
        """The next shard that nobody is at and that is not made; None where there is none now."""
        if not self.todo or self.clock() < self.next_look:
            return None
        begun = time.monotonic()
        taken = shards_of(self.heartbeat.others())
        while (shard := next((shard for shard in self.todo if shard not in taken), None)) is not None:
            if self.storage.exists(sidecar_name(self.plan, shard)):
                self._drop_made(shard)
            elif self.storage.exists(shard_name(self.plan.recipe.split, shard)):  # of a clone that is put together
                if shard not in self._drop_kept():
                    return shard
            else:
                return shard
            taken.add(shard)  # also where the listing does not show it yet
        self._drop_made()  # somebody is at each of the rest, or was
        self.num_empty_looks += 1
        self.next_look = self.clock() + max(SECONDS_BETWEEN_LOOKS, PATIENCE * (time.monotonic() - begun))
        return None

    def _drop_kept(self) -> set[int]:
        """Leaves out what another run has put together since this one began: all, or a shorter clone's shards."""
        num_kept = len(read_state(self.storage).kept(self.plan))
        kept = {shard for shard in self.todo if shard < num_kept}
        self.todo = deque(shard for shard in self.todo if shard >= num_kept)
        self.num_images_made += self.plan.count_samples(kept)
        return kept

    def drop_failed(self) -> list[Failure]:
        """Leaves out what other runs have given up since this one began: the failures that were not there then."""
        found_now = read_failures(self.storage)
        theirs = {failure.shard: failure for failure in found_now if failure.shard not in self.failed_before}
        found = [theirs[shard] for shard in self.todo if shard in theirs]
        self.todo = deque(shard for shard in self.todo if shard not in theirs)
        return found

    def _drop_made(self, beside: int | None = None) -> None:
        """Leaves out what is made, by one listing: of the folder in which a shard lies, or of all."""
        folder, requested = MAKING, list(self.todo)
        if beside is not None:
            number = beside // SHARDS_PER_FOLDER
            folder, requested = (
                staging_folder(beside),
                [shard for shard in requested if shard // SHARDS_PER_FOLDER == number],
            )
        made = made_shards(self.plan, self.storage, requested, folder)
        self.todo = deque(shard for shard in self.todo if shard not in made)
        self.num_images_made += self.plan.count_samples(made)


class _EndsNow(BaseException):
    """The run ends without waiting for the shards that are being made."""


class _Run:
    """The run as it goes on."""

    def __init__(self, job: Job, workers: Workers, clock: Callable[[], float]) -> None:
        self.job, self.workers, self.clock = job, workers, clock
        self.plan, self.storage = job.task.plan, job.heartbeat.storage
        self.policy = Policy(job.execution, is_begun=job.is_begun)
        self.queue = _Queue(job, clock)
        self.busy: dict[str, int] = {}
        self.images: dict[int, int] = {}
        """Images made so far of each shard that is being made here."""
        self.num_images_done = self.num_images_reported = 0
        self.rate = deque([(clock(), 0)])
        self.failures: list[Failure] = []
        self.causes: list[str] = []
        self.end: End | None = None
        self.is_alone = False
        """Whether the last look found nothing that is free."""
        self.is_replaced = False
        """Whether another run has put the clone together meanwhile."""

    def to_end(self) -> Report:
        with contextlib.suppress(_EndsNow):
            self._loop()
        with contextlib.suppress(ReadableError, OSError):  # of a store that is gone
            self.job.heartbeat.show(())
        is_left = bool(self.queue.todo or self.busy) and not self.is_replaced
        return Report(
            failures=self.failures,
            causes=self.causes,
            has_given_up=is_left and (self.end is not None or not self.workers.has_any()),
            is_stopped=is_left and self.job.stop.is_requested and self.workers.has_any(),
            is_all_made=not is_left and not self.failures,
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
        return self.end is not None or self.job.stop.is_requested or self.is_replaced or not self.workers.has_any()

    def _is_over(self) -> bool:
        if self.busy:
            return False
        return self._is_ending() or not self.queue.todo or (self.is_alone and not self.job.waits_for_others)

    def _hand_out(self) -> None:
        """Gives every free worker a shard; may be called again after a store did not answer."""
        for worker in self.workers.free():
            num_looks = self.queue.num_empty_looks
            shard = self.queue.next()
            if shard is None:
                self.job.heartbeat.show(self.busy.values())
                if self.queue.num_empty_looks > num_looks:
                    self.failures += self.queue.drop_failed()
                    self.is_alone = True
                return
            self.job.heartbeat.show([*self.busy.values(), shard])
            self.is_alone = False
            self.queue.todo.remove(shard)
            self.busy[worker] = shard
            self.images[shard] = 0
            self.workers.start(worker, shard, self.policy.on_start(worker, shard, self.clock()))

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Images):
            if (shard := self.busy.get(event.worker)) is not None:
                self.images[shard] += event.num_kept
                self._carry_out(self.policy.on_images(event.worker, event.num_first, event.num_broken, self.clock()))
                self._report_progress()
            return
        if self.busy.get(event.worker) != event.shard:  # of a worker that was killed since
            return
        del self.busy[event.worker]
        self.images.pop(event.shard)
        if event.problem is None:
            self.num_images_done += self.plan.count_samples([event.shard])
            if event.shard in self.queue.failed_before:
                self._retry_unreachable(partial(forget_failure, self.storage, event.shard))
        elif not self._retry_unreachable(partial(self.storage.exists, TARGET)):
            self.is_replaced = True
            self.policy.forget(event.worker)
            return
        self._carry_out(self.policy.on_end(event.worker, event.shard, event.problem))

    def _carry_out(self, decisions: Sequence[Decision]) -> None:
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
                    self.causes.append(f"worker {worker}: {cause}")
                    self.job.on_warning(f"worker {worker} gets nothing more: {cause}")
                case End(error, cause, is_now):
                    self.end = decision
                    self.causes += [cause] if cause and error is None else []
                    if is_now:
                        raise _EndsNow

    def _retry_unreachable(self, call: Callable[[], Result]) -> Result:
        return retry_unreachable(call, self.job.task.patience, is_over=lambda: self.job.stop.is_requested)

    def _report_progress(self) -> None:
        now = self.num_images_done + self.queue.num_images_made + sum(self.images.values())
        if now > self.num_images_reported:
            self.job.on_images(now - self.num_images_reported)
            self.num_images_reported = now
        self._update_summary()

    def _update_summary(self) -> None:
        """Puts images and rate into what `status` shows; the board's own thread writes it."""
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
