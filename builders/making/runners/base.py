"""What every runner is: a module with `run(job)`, which has some workers make the shards that it is given, in any order.

A runner brings workers; `scheduling.run_shards` hands shards out to them, and `policy.py` decides what follows from failures.
A runner of another package is an entry point in the group "fakeit.runners".
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol, TypeVar, cast

from builders.format.errors import ReadableError, UnreachableError
from builders.format.storage import Storage, open_storage
from builders.making.board import Board
from builders.making.engines.base import Generate, engine
from builders.making.execution import Execution
from builders.making.failures import Failure, problem_of
from builders.making.plan import Plan
from builders.making.plugins import find_plugin
from builders.making.policy import Problem
from builders.making.recipe import Recipe
from builders.making.shard import make_shard, put_kept, sweep_scratch
from builders.making.stopping import Stop
from builders.making.tuning import Tell, shared_batch_size

Result = TypeVar("Result")

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds between two tries at a store that does not answer, beyond the storage's own."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What every worker of a run is given once. It travels between processes."""

    plan: Plan
    out: str
    scratch: str = ""
    patience: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run's work, as a runner gets it."""

    task: Task
    execution: Execution
    board: Board
    shards: list[int] = field(default_factory=list)
    is_ordered: bool = False
    """Whether they have to be taken up in this order; else a run begins somewhere, so that several meet late."""
    is_begun: bool = False
    """Whether some shard of the clone is finished already."""
    num_workers: int = 0
    """0 is as many as the runner finds room for."""
    address: str = ""
    stop: Stop = field(default_factory=Stop)
    waits_for_others: bool = True
    """Whether to wait for shards that other runs are making, and make them should those runs end."""
    on_images: Callable[[int], object] = field(default=lambda num_images: None)
    on_note: Callable[[str], object] = field(default=lambda note: None)
    """Hears why a worker gets nothing more, or was replaced."""


@dataclass(frozen=True, kw_only=True)
class Report:
    failures: list[Failure] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)
    """Why workers were retired."""
    has_given_up: bool = False
    """Whether the rest was not tried, for no worker was left."""
    is_stopped: bool = False
    """Whether a signal ended the run before its work was done."""
    is_all_made: bool = False
    """Whether every shard of the job is made, here or by other runs."""
    error: ReadableError | None = None
    """What ended the run."""


class Runner(Protocol):
    def prepare(self, address: str) -> None:
        """Checks whether it can run here, before anything is written.

        Raises:
            UserError: it cannot.
        """

    def run(self, job: Job) -> Report: ...


@dataclass(frozen=True)
class Images:
    """A worker has made a batch, or lives: then all numbers are 0."""

    worker: str
    num_kept: int
    """Images that will be in the shard."""
    num_first: int
    """Images of first attempts: without those that were made again in place of a flagged one."""
    num_broken: int
    """Of the first attempts."""


@dataclass(frozen=True)
class Ended:
    """An attempt at a shard has ended."""

    worker: str
    shard: int
    problem: Problem | None
    """None where the shard is made."""


Event = Images | Ended


class Workers(Protocol):
    """Some processes that attempt shards, one each. A worker's name stays when another process takes its place."""

    def free(self) -> list[str]:
        """Workers that can take a shard now."""

    def start(self, worker: str, shard: int, execution: Execution) -> None: ...

    def poll(self, seconds: float, on_event: Callable[[Event], object]) -> None:
        """Hands over what has happened; waits for the first event, at most some seconds."""

    def replace(self, worker: str) -> None:
        """Kills a worker's process; another takes its place."""

    def retire(self, worker: str) -> None:
        """Gives a worker nothing more."""

    def has_any(self) -> bool:
        """Whether any worker is left that is not retired, or may still come."""


def find_runner(name: str) -> Runner:
    """The runner of that name.

    Raises:
        UserError: there is none, or what it stands on is not installed.
    """
    return cast(Runner, find_plugin("runners", name))


def attempt(task: Task, shard: int, execution: Execution, tell: Tell) -> Problem | None:
    """Makes one shard in this process: what a worker of any runner does."""
    plan = task.plan
    try:
        storage = open_storage(task.out)
        sweep_scratch(storage, task.scratch)
        if not storage.is_local and _put(task, shard, storage, tell):
            return None
        if execution.is_auto:
            tuned = partial(shared_batch_size, plan, storage, execution, tell, forget_loaded)
            execution = patiently(tuned, task.patience, partial(tell, 0, 0, 0))
        generate = _loaded(plan.recipe, execution)
        for counts in make_shard(plan, shard, generate, execution, storage, task.scratch):
            tell(*counts)
        if not storage.is_local and not _put(task, shard, storage, tell):
            raise FileNotFoundError(f"the finished tar of shard {shard} is gone from the scratch folder")
    except Exception as error:
        return replace(problem_of(error), batch_size=execution.batch_size)
    return None


def patiently(
    call: Callable[[], Result],
    patience: float,
    on_wait: Callable[[], object] = lambda: None,
    is_over: Callable[[], bool] = lambda: False,
) -> Result:
    """call(), again and again where a store does not answer, for so many seconds.

    Args:
        call: May be called again after it failed halfway.
        patience: Seconds.
        on_wait: Called before each wait.
        is_over: Asked every second of a wait; true ends the patience.

    Raises:
        UnreachableError: the store does not answer for longer.
    """
    end, wait = time.monotonic() + patience, FIRST_WAIT
    while True:
        try:
            return call()
        except UnreachableError:
            if time.monotonic() >= end or is_over():
                raise
        on_wait()
        until = min(time.monotonic() + wait, end)
        while (seconds := until - time.monotonic()) > 0 and not is_over():
            time.sleep(min(seconds, 1.0))
        wait = min(2 * wait, LONGEST_WAIT)


def _put(task: Task, shard: int, storage: Storage, tell: Tell) -> bool:
    """Puts a finished tar into the store, again and again where that does not answer; False where there is none."""
    with _signs_of_life(tell):
        return patiently(partial(put_kept, task.plan, shard, storage, task.scratch), task.patience)


@contextmanager
def _signs_of_life(tell: Tell) -> Iterator[None]:
    """Says now and then that this worker lives while it waits for a store, which may take longer than many batches."""
    is_over = threading.Event()

    def say() -> None:
        while not is_over.wait(LONGEST_WAIT):
            tell(0, 0, 0)

    thread = threading.Thread(target=say, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


_last: dict[tuple[Recipe, str, Execution], Generate] = {}


def _loaded(recipe: Recipe, execution: Execution) -> Generate:
    """The engine made ready, kept for the next shard; another one takes its memory first."""
    key = (recipe, recipe.model_dir, execution)
    if key not in _last:
        _last.clear()
        _last[key] = engine(recipe.engine).load(recipe, execution)
    return _last[key]


def forget_loaded() -> None:
    """Frees what the last shard was made with."""
    _last.clear()
