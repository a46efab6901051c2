"""What a run has to do, and what comes of it: the data that pass between a runner, the scheduler and the workers."""

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
    heartbeat: Heartbeat
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
    on_warning: Callable[[str], object] = field(default=lambda note: None)
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
