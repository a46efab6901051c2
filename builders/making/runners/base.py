"""What every runner is: a module with `run(job)`, which makes the shards it is given, in any order, on some machines.

A runner brings an executor, which attempts shards somewhere; `drive` decides which, and what follows from how each ended.
"""

import importlib
import pkgutil
import time
from collections import Counter, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Protocol, cast

import builders.making.runners as runners_folder
from builders.format.errors import UserError, near
from builders.format.manifest import SHARDS_PER_FOLDER
from builders.format.storage import Storage
from builders.making.claims import Claims, shard_claim
from builders.making.engines.base import engine
from builders.making.failures import Failure, Problem, forget_failure, problem_of, read_failures, write_failure
from builders.making.output import TARGET, Output
from builders.making.plan import Plan
from builders.making.shard import has_sidecar, make_shard
from builders.making.stopping import Stop

MAX_ATTEMPTS = 3
"""At a shard, before it is given up."""
MAX_FAILED_IN_A_ROW = 3
"""Shards that are given up before any is made, before the run is; and attempts of a worker that fail as nobody expected, with
none between that succeeds, before it gets nothing more."""
MAX_DEATHS = 30
"""Of workers, with no shard made between, before the run is given up."""
SECONDS_BETWEEN_LOOKS, PATIENCE = 3.0, 10.0
"""At what other runs have made meanwhile; and at least so many times as long as a look takes."""
MAX_TAKEN_BY_OTHERS = 10
"""Shards found made or claimed one by one, before many are looked at together."""


@dataclass(frozen=True, kw_only=True)
class Job:
    plan: Plan
    out: str
    shards: list[int]
    """In the order in which they are taken up."""
    claims: Claims
    num_workers: int = 0
    """0 is as many as the runner finds room for."""
    address: str = ""
    """Of a cluster."""
    stop: Stop = field(default_factory=Stop)
    waits_for_others: bool = True
    """Whether to wait for shards that other runs are making, and make them should those runs end."""
    on_images: Callable[[int], object] = field(default=lambda num_images: None)
    """Called in the driving process with the number of images finished since the last call."""


@dataclass(frozen=True, kw_only=True)
class Report:
    failures: list[Failure] = field(default_factory=list)
    has_given_up: bool = False
    """Whether so much failed that the rest was not tried."""
    is_stopped: bool = False
    """Whether a signal ended the run before its work was done."""


class Runner(Protocol):
    def num_workers(self, asked: int, plan: Plan) -> int:
        """How many workers there will be, as far as that is known, of 0 or more that were asked for."""

    def prepare(self, address: str) -> None:
        """Looks whether it can run here, before anything is written.

        Raises:
            UserError: it cannot.
        """

    def run(self, job: Job) -> Report: ...


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an attempt at a shard ended."""

    shard: int
    worker: str = ""
    """Where it was attempted: one that stays the same when a process takes another's place."""
    problem: Problem | None = None
    is_fault_of_machine: bool = False
    """It counts for nothing: a node was lost."""


class Executor(Protocol):
    """Attempts at shards, several at a time."""

    def room(self) -> int:
        """How many more it takes now."""

    def submit(self, shard: int) -> None: ...

    def wait(self, seconds: float, on_progress: Callable[[], object]) -> list[Outcome]:
        """Attempts that have ended; returns at the first one, and after some seconds anyway.

        One that works in this very process calls `on_progress` meanwhile.
        """

    def num_images(self) -> int:
        """Images made so far of shards that are in the making."""

    def bench(self, worker: str) -> bool:
        """Gives a worker nothing more, for all that it tries fails; tells whether there are others."""


def runner(name: str) -> Runner:
    """The runner of that name: a module in this folder."""
    names = [module.name for module in pkgutil.iter_modules(runners_folder.__path__) if module.name != "base"]
    if name not in names:
        raise UserError(f"unknown runner '{name}'; {near(name, names)}")
    return cast(Runner, importlib.import_module(f"{runners_folder.__name__}.{name}"))


def attempt(plan: Plan, out: str, shard: int, on_images: Callable[[int], object]) -> Problem | None:
    """Makes one shard in this process; what a worker of any runner does."""
    recipe = plan.recipe
    try:
        painter = engine(recipe.engine)
        make_shard(plan, shard, painter.load(recipe), painter.environment(recipe), Storage(out), on_images)
    except Exception as error:
        return problem_of(error)
    return None


def in_own_order(job: Job) -> Job:
    """The shards begun at a place of the run's own, so that several runs meet late."""
    start = int(job.claims.run.id, 16) % len(job.shards)
    return replace(job, shards=job.shards[start:] + job.shards[:start])


def drive(job: Job, executor: Executor) -> Report:
    """Has an executor make the job's shards: each once if all goes well, `MAX_ATTEMPTS` times before it is given up. Deaths of
    workers count as attempts only while nothing else is made between them.

    Shards that another run has claimed are passed over until it has made them or is no more.

    Raises:
        UserError, OSError: something that no shard can be made with.
    """
    return Drive(job, executor).to_end()


class Drive:
    """The run as it goes on; see `drive`."""

    def __init__(self, job: Job, executor: Executor, clock: Callable[[], float] = time.monotonic) -> None:
        self.job, self.executor, self.storage = job, executor, Storage(job.out)
        self.queue, self.claimed = deque(job.shards), list[int]()
        self.busy: set[int] = set()
        self.attempts: Counter[int] = Counter()
        self.deaths: Counter[int] = Counter()
        """Of workers at a shard, since a shard was last made."""
        self.failed_in_a_row: Counter[str] = Counter()
        """Of each worker."""
        self.last_problem: dict[int, Problem] = {}
        self.failures: list[Failure] = []
        self.num_made_here = self.num_images_told = self.num_images_made = 0
        self.output = Output(job.plan, self.storage, None)
        self.clock, self.next_look = clock, 0.0
        self.has_found_nothing = False
        self.has_given_up = False

    def to_end(self) -> Report:
        try:
            while True:
                if not self._is_ending():
                    self.hand_out()
                if self.is_over():
                    break
                for outcome in self.executor.wait(0.2 if self.busy else 1.0, self._tell_progress):
                    self.take_back(outcome)
                self._tell_progress()
        except FileNotFoundError:
            if self.storage.exists(TARGET):
                raise
            self.queue.clear()
            self.claimed.clear()
        has_given_up, is_left = self.has_given_up, bool(self.queue or self.claimed)
        is_stopped = self.job.stop.is_asked and not has_given_up and is_left
        return Report(failures=self.failures, has_given_up=has_given_up and is_left, is_stopped=is_stopped)

    def _is_ending(self) -> bool:
        return self.has_given_up or self.job.stop.is_asked

    def is_over(self) -> bool:
        """Whether nothing is left to do here."""
        if self.busy:
            return False
        if self._is_ending() or not (self.queue or self.claimed):
            return True
        return not self.queue and self.has_found_nothing and not self.job.waits_for_others

    def hand_out(self) -> None:
        """Gives the executor as many shards as it has room for and are found."""
        num_taken = 0
        while self.executor.room() > 0 and (self.queue or self.claimed):
            if not self.queue or num_taken >= MAX_TAKEN_BY_OTHERS:
                if self.clock() < self.next_look:
                    return
                self._look_around()
                num_taken = 0
                if not self.queue:
                    return
            shard = self.queue.popleft()
            if self._take_up(shard):
                self.busy.add(shard)
                self.executor.submit(shard)
                self.next_look, self.has_found_nothing = 0.0, False
            else:
                num_taken += 1

    def _take_up(self, shard: int) -> bool:
        """Whether a shard is ours to make: no other run is at it, or has made it."""
        if not self.job.claims.take(shard_claim(shard)):
            self.claimed.append(shard)
            return False
        if has_sidecar(self.job.plan, shard, self.storage):
            self.job.claims.release(shard_claim(shard))
            self._count_in([shard])
            return False
        if not self.storage.exists(TARGET):
            raise FileNotFoundError(TARGET)  # another run has put the clone together meanwhile
        return True

    def _look_around(self) -> None:
        """Finds shards of the queue that nobody is at, by listing a folder after the other; or else some whose claims are lost.

        Until one is found to be ours the next look waits, for listing many shards and reading many claims are dear.
        """
        start = time.monotonic()
        self._pass_over_failed()
        taken, free = self.job.claims.taken(), list[int]()
        while self.queue and not free:
            free = self._sort_out(self._next_folder(), taken)
        if not free:
            claimed, self.claimed = self.claimed, []
            free = self._sort_out(claimed, taken) or self._lost()
        self.queue.extendleft(reversed(free))
        self.has_found_nothing = not free
        self.next_look = self.clock() + max(SECONDS_BETWEEN_LOOKS, PATIENCE * (time.monotonic() - start))

    def _pass_over_failed(self) -> None:
        """Reports what other runs have given up since this one began, and leaves it at that."""
        failed = [failure for failure in read_failures(self.storage) if failure.time >= self.job.claims.run.started]
        theirs = {failure.shard: failure for failure in failed}
        self.failures += [theirs[shard] for shard in [*self.queue, *self.claimed] if shard in theirs]
        self.queue = deque(shard for shard in self.queue if shard not in theirs)
        self.claimed = [shard for shard in self.claimed if shard not in theirs]

    def _next_folder(self) -> list[int]:
        """Takes the next shards out of the queue that lie in one folder."""
        folder, shards = self.queue[0] // SHARDS_PER_FOLDER, list[int]()
        while self.queue and self.queue[0] // SHARDS_PER_FOLDER == folder:
            shards.append(self.queue.popleft())
        return shards

    def _sort_out(self, shards: list[int], taken: Collection[str]) -> list[int]:
        """Those of some shards that nobody has made or claimed."""
        made = self.output.made_shards(shards)
        self._count_in(made)
        left = [shard for shard in shards if shard not in made]
        self.claimed += [shard for shard in left if shard_claim(shard) in taken]
        return [shard for shard in left if shard_claim(shard) not in taken]

    def _lost(self) -> list[int]:
        """Those of the claimed shards whose runs are not alive."""
        lost = set(self.job.claims.lost([shard_claim(shard) for shard in self.claimed]))
        found = [shard for shard in self.claimed if shard_claim(shard) in lost]
        self.claimed = [shard for shard in self.claimed if shard_claim(shard) not in lost]
        return found

    def take_back(self, outcome: Outcome) -> None:
        shard, problem = outcome.shard, outcome.problem
        self.busy.discard(shard)
        if problem is None:
            forget_failure(self.storage, shard)
            self._count_in([shard])
            self.num_made_here += 1
            self.failed_in_a_row[outcome.worker] = 0
            self.deaths.clear()  # workers live, so none of the shards has yet been shown to kill them
        elif not self.storage.exists(TARGET):
            raise FileNotFoundError(TARGET)  # another run has put the clone together meanwhile
        elif problem.ends_run:
            assert problem.error
            raise problem.error
        else:
            self._after_failure(outcome, problem)
        self.job.claims.release(shard_claim(shard))

    def _after_failure(self, outcome: Outcome, problem: Problem) -> None:
        shard = outcome.shard
        (self.deaths if problem.is_death else self.attempts)[shard] += not outcome.is_fault_of_machine
        self.last_problem[shard] = problem
        if problem.ends_shard or self._num_attempts(shard) >= MAX_ATTEMPTS:
            self._give_up(shard)
        elif problem.is_unexpected or self.num_made_here:
            self.queue.append(
                shard
            )  # the others first: it may not be the shard's fault, and then another worker makes it
        else:
            self.queue.appendleft(shard)
        if self._is_hopeless(outcome, problem):
            self.has_given_up = True
            for tried in [other for other in self.queue if self._num_attempts(other)]:
                self.queue.remove(tried)
                self._give_up(tried)

    def _is_hopeless(self, outcome: Outcome, problem: Problem) -> bool:
        """Whether most likely every other shard fails, too."""
        if problem.is_unexpected:
            self.failed_in_a_row[outcome.worker] += 1
            if self.failed_in_a_row[outcome.worker] >= MAX_FAILED_IN_A_ROW:
                return not self.executor.bench(outcome.worker)
        if not self.num_made_here and len(self.failures) >= MAX_FAILED_IN_A_ROW:
            return True
        return self.deaths.total() >= MAX_DEATHS

    def _num_attempts(self, shard: int) -> int:
        return self.attempts[shard] + self.deaths[shard]

    def _give_up(self, shard: int) -> None:
        problem, num_attempts = self.last_problem[shard], self._num_attempts(shard)
        self.failures.append(write_failure(self.storage, self.job.plan, shard, problem, num_attempts))

    def _count_in(self, shards: Collection[int]) -> None:
        self.num_images_made += self.job.plan.num_in(shards)

    def _tell_progress(self) -> None:
        now = self.num_images_made + self.executor.num_images()
        if now > self.num_images_told:
            self.job.on_images(now - self.num_images_told)
            self.num_images_told = now
