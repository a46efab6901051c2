"""Data that pass between a runner, the scheduler and the workers: the job of a run, its events and its report."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from builders.coordination.failures import Failure
from builders.coordination.heartbeat import Heartbeat
from builders.coordination.policy import Problem
from builders.coordination.signals import Stop
from builders.errors import ReadableError
from builders.planning.plan import Plan
from builders.recipes.execution import Execution


@dataclass(frozen=True, kw_only=True)
class Task:
    """Data that every worker of a run receives once. It is pickled to other processes."""

    plan: Plan
    out: str
    scratch: str = ""
    patience: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """The work of a run, as its runner receives it."""

    task: Task
    execution: Execution
    heartbeat: Heartbeat
    shards: list[int] = field(default_factory=list)
    num_own: int | None = None
    """Number of shards at the front that belong to this run, which makes them in this order, and then may help other runs.
    None: all shards belong to all runs, and each run starts elsewhere, so runs rarely collide."""
    is_begun: bool = False
    """Whether some shard of the clone is already finished."""
    num_workers: int = 0
    """Number of workers; 0 means as many as the runner has room for."""
    address: str = ""
    stop: Stop = field(default_factory=Stop)
    waits_for_others: bool = True
    """Whether to wait for shards that other runs are making, and to make them if those runs end."""
    on_images: Callable[[int], object] = field(default=lambda num_images: None)
    on_warning: Callable[[str], object] = field(default=lambda note: None)
    """Called with a sentence when a worker is retired or replaced."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Outcome of a run."""

    failures: list[Failure] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)
    """Reasons why workers were retired, or why the run ended early."""
    has_given_up: bool = False
    """Whether the run ended with shards untried, because no worker was left or for an error."""
    is_stopped: bool = False
    """Whether a signal ended the run before its work was done."""
    is_all_made: bool = False
    """Whether every shard of the job is finished, here or by other runs."""
    is_finalized_elsewhere: bool = False
    """Whether another run has finalized the clone meanwhile, or a shorter one that was begun before this one."""
    error: ReadableError | None = None
    """The error that ended the run."""


@dataclass(frozen=True)
class Images:
    """A worker has finished a batch. If all numbers are 0, this is only a sign of life."""

    worker: str
    num_kept: int
    """Images of the batch that will be in the shard."""
    num_first: int
    """Images of first attempts, without those that were made again to replace a rejected image."""
    num_broken: int
    """Broken images among those of first attempts."""
    num_low: int
    """Images among those of first attempts that a check rejects."""

    @property
    def first_attempts(self) -> tuple[int, int, int]:
        """Numbers of first attempts: all, broken ones, and those that a check rejects."""
        return self.num_first, self.num_broken, self.num_low


@dataclass(frozen=True)
class Ended:
    """An attempt at a shard has ended."""

    worker: str
    shard: int
    problem: Problem | None
    """None if the shard is finished."""


Event = Images | Ended


class Workers(Protocol):
    """Processes that attempt shards, one shard each at a time. A worker keeps its name when its process is replaced."""

    def free(self) -> list[str]:
        """Returns the workers that can take a shard now."""

    def start(self, worker: str, shard: int, execution: Execution) -> None: ...

    def poll(self, seconds: float, on_event: Callable[[Event], object]) -> None:
        """Passes all new events to `on_event`; waits at most `seconds` for the first one."""

    def replace(self, worker: str) -> None:
        """Kills a worker's process; a new one takes its place."""

    def retire(self, worker: str) -> None:
        """Stops giving shards to a worker."""

    def has_any(self) -> bool:
        """Whether some worker is not retired, or may still join."""
