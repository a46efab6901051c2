"""The runner for Ray: an actor for each GPU of a cluster, or each core of one without; nodes may come and go.

    fakeit-build make RECIPE OUT --runner ray [--address auto|HOST:6379] [--workers N]

An actor loads the model once. With --workers more actors are asked for than there is room for, so that an autoscaling cluster
grows; without, there are as many as the cluster has room for now, and more as nodes come. A shard that a lost node was making
is made again elsewhere, and that does not count as a failure of the shard.
"""

import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from builders.coordination.attempt import attempt
from builders.coordination.job import Ended, Event, Images, Job, Report, Task
from builders.coordination.policy import Problem
from builders.coordination.scheduler import run_shards
from builders.engines.base import engine
from builders.errors import UserError, first_line, missing_extra
from builders.recipes.execution import Execution

SECONDS_TO_CONNECT = 15
MAX_FAILED_STARTS = 5
SECONDS_BETWEEN_COUNTS = 5.0
"""Between two looks at what the cluster has, and at how many images the actors have made."""


def prepare(address: str) -> None:
    """Connects to the cluster."""
    try:
        import ray
    except ModuleNotFoundError:
        raise missing_extra("ray", "ray") from None
    if ray.is_initialized():
        return
    address = address or "auto"
    try:
        host, colon, port = address.removeprefix("ray://").rpartition(":")
        if colon:  # Ray itself would end the process where nobody listens
            socket.create_connection((host, int(port)), SECONDS_TO_CONNECT).close()
        ray.init(address=None if address == "local" else address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"no Ray cluster at '{address}' ({first_line(error)}); start one with 'ray start --head', or give --address local"
        ) from None


def run(job: Job) -> Report:
    """Makes the shards on the cluster."""
    actors = _Actors(job)
    try:
        return run_shards(job, actors)
    finally:
        actors.end()


class ShardActor:
    """What runs on a node: makes shards with a model that stays loaded, and says meanwhile how far it is."""

    def __init__(self, task: Task) -> None:
        self.task, self.counts = task, (0, 0, 0, 0)

    def location(self) -> str:
        """Node, and GPU if there is one."""
        import ray

        context = ray.get_runtime_context()
        return f"{context.get_node_id()}/{','.join(context.get_accelerator_ids().get('GPU', []))}"

    def make(self, shard: int, execution: Execution) -> Problem | None:
        return attempt(self.task, shard, execution, self._count)

    def progress(self) -> tuple[int, ...]:
        """What it has told since it began: how often, images kept, of first attempts, and broken ones of those."""
        return self.counts

    def _count(self, *counts: int) -> None:
        self.counts = tuple(a + b for a, b in zip(self.counts, (1, *counts), strict=True))  # type: ignore[assignment]


@dataclass
class _Actor:
    handle: Any
    ready: Any
    """Reference to its first answer, its place."""
    name: str = ""
    """Its place, and a number where several share it."""
    shard: int | None = None
    counts: tuple[int, ...] = (0, 0, 0, 0)
    progress_ref: Any = None
    """Reference to its next answer about its progress."""


@dataclass
class _Actors:
    job: Job
    actors: list[_Actor] = field(default_factory=list)
    tasks: dict[Any, _Actor] = field(default_factory=dict)
    next_count: float = 0.0
    num_failed_starts: int = 0
    retired: set[str] = field(default_factory=set)
    """Their actors stay, so that no other is put in their place."""

    def __post_init__(self) -> None:
        import ray

        uses_gpu = engine(self.job.task.plan.recipe.engine).USES_GPU
        self.resource = "GPU" if ray.cluster_resources().get("GPU", 0) and uses_gpu else "CPU"
        self.task = ray.put(self.job.task)

    def free(self) -> list[str]:
        self._grow()
        self._look_for_ready()
        return [a.name for a in self.actors if a.name and a.name not in self.retired and a.shard is None]

    def start(self, worker: str, shard: int, execution: Execution) -> None:
        actor = self._named(worker)
        actor.shard = shard
        self.tasks[actor.handle.make.remote(shard, execution)] = actor

    def poll(self, seconds: float, on_event: Callable[[Event], object]) -> None:
        import ray

        if not self.tasks:
            time.sleep(min(seconds, 0.1))
            return
        done, _ = ray.wait(list(self.tasks), num_returns=1, timeout=seconds)
        for reference in done:
            on_event(self._ended(reference))
        self._hear_progress(on_event)

    def replace(self, worker: str) -> None:
        import ray

        for actor in [actor for actor in self.actors if actor.name == worker]:
            self.actors.remove(actor)
            self.tasks = {reference: other for reference, other in self.tasks.items() if other is not actor}
            ray.kill(actor.handle)

    def retire(self, worker: str) -> None:
        self.retired.add(worker)

    def has_any(self) -> bool:
        return not self.retired or any(actor.name not in self.retired for actor in self.actors)

    def end(self) -> None:
        import ray

        for actor in self.actors:
            ray.kill(actor.handle)

    def _named(self, worker: str) -> _Actor:
        return next(actor for actor in self.actors if actor.name == worker)

    def _ended(self, reference: Any) -> Ended:
        import ray

        actor = self.tasks.pop(reference)
        shard, actor.shard = actor.shard, None
        assert shard is not None
        try:
            return Ended(actor.name, shard, ray.get(reference))
        except ray.exceptions.RayError:
            self.actors.remove(actor)
            if actor.name.partition("/")[0] in {node["NodeID"] for node in ray.nodes() if node["Alive"]}:
                cause = "the worker process died, perhaps because memory ran out"
                return Ended(actor.name, shard, Problem(scope="worker", cause=cause, is_death=True))
            return Ended(actor.name, shard, Problem(scope="machine", cause="its node was lost"))

    def _hear_progress(self, on_event: Callable[[Event], object]) -> None:
        """Passes on what the actors say of their images; one that hangs does not answer, and nothing waits for it."""
        import ray

        for actor in [actor for actor in self.actors if actor.shard is not None]:
            actor.progress_ref = actor.progress_ref or actor.handle.progress.remote()
            if not ray.wait([actor.progress_ref], timeout=0)[0]:
                continue
            try:
                counts, before = ray.get(actor.progress_ref), actor.counts
            except ray.exceptions.RayError:  # its task says so, too
                continue
            actor.counts, actor.progress_ref = counts, None
            if counts != before:
                on_event(Images(actor.name, *(a - b for a, b in zip(counts[1:], before[1:], strict=True))))

    def _grow(self) -> None:
        """Starts actors up to the number wanted; those that died have left room."""
        import ray

        now = time.monotonic()
        if now < self.next_count and self.actors:
            return
        self.next_count = now + SECONDS_BETWEEN_COUNTS
        has = int(ray.cluster_resources().get(self.resource, 0))
        wanted = min(self.job.num_workers or max(has, 1), len(self.job.shards))
        options: dict[str, Any] = {"num_gpus": 1} if self.resource == "GPU" else {}
        for _ in range(len(self.actors), wanted):
            actor = ray.remote(ShardActor).options(max_restarts=0, max_concurrency=2, num_cpus=1, **options)
            handle = actor.remote(self.task)
            self.actors.append(_Actor(handle, handle.location.remote()))

    def _look_for_ready(self) -> None:
        import ray

        waiting = {actor.ready: actor for actor in self.actors if not actor.name}
        done, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0) if waiting else ([], [])
        reason = ""
        for reference in done:
            try:
                waiting[reference].name = self._free_name(ray.get(reference))
                self.num_failed_starts = 0
            except ray.exceptions.RayError as error:  # lost before it answered, or it cannot start
                self.actors.remove(waiting[reference])
                self.num_failed_starts += 1
                reason = str(error).strip().splitlines()[-1]
        if self.num_failed_starts >= MAX_FAILED_STARTS and not any(actor.name for actor in self.actors):
            raise UserError(
                f"no worker starts on the cluster ({reason}); install fakeit, with its extras, on the nodes"
            )

    def _free_name(self, location: str) -> str:
        """The place, with the first number that no other actor there has, so that a new process takes the old one's name."""
        taken = {actor.name for actor in self.actors}
        return next(name for number in range(len(taken) + 1) if (name := f"{location}#{number}") not in taken)
