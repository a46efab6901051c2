"""The runner for Ray: one actor per GPU of a cluster, or per core of a cluster without GPUs. Nodes may join and leave.

    fakeit-build make RECIPE OUT --runner ray [--address auto|HOST:6379] [--workers N]

An actor loads the model once. With --workers, more actors may be requested than the cluster has room for, so that an
autoscaling cluster grows. Without it, there are as many actors as the cluster has room for, and more when nodes join.
If a node is lost, its shard is made again elsewhere, and this does not count as a failure of the shard.
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
"""Interval between two checks of the cluster's resources, after which actors may be added."""


def prepare(address: str) -> None:
    """Connects to the cluster.

    Raises:
        UserError: Ray is not installed, or no cluster answers at the address.
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise missing_extra("ray", "ray") from None
    if ray.is_initialized():
        return
    address = address or "auto"
    try:
        host, colon, port = address.removeprefix("ray://").rpartition(":")
        # Checked here, because Ray itself ends the process if nothing listens at the address.
        if colon:
            socket.create_connection((host, int(port)), SECONDS_TO_CONNECT).close()
        ray.init(address=None if address == "local" else address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"no Ray cluster at '{address}' ({first_line(error)}); start one with 'ray start --head', or give "
            "--address local"
        ) from None


def run(job: Job) -> Report:
    """Makes the job's shards on the cluster."""
    actors = _Actors(job)
    try:
        return run_shards(job, actors)
    finally:
        actors.end()


class ShardActor:
    """A worker on a node: makes shards with a model that stays loaded, and reports its progress meanwhile."""

    def __init__(self, task: Task) -> None:
        self.task, self.counts = task, (0, 0, 0, 0, 0)

    def location(self) -> str:
        """Returns the id of the node, and the GPU if there is one."""
        import ray

        context = ray.get_runtime_context()
        return f"{context.get_node_id()}/{','.join(context.get_accelerator_ids().get('GPU', []))}"

    def make(self, shard: int, execution: Execution) -> Problem | None:
        """Makes one shard; returns the problem if that failed."""
        return attempt(self.task, shard, execution, self._count)

    def progress(self) -> tuple[int, ...]:
        """Returns totals since the start: reports, images kept, images of first attempts, broken images
        among those, and images among those that a check rejects."""
        return self.counts

    def _count(self, *counts: int) -> None:
        self.counts = tuple(a + b for a, b in zip(self.counts, (1, *counts), strict=True))  # type: ignore[assignment]


@dataclass
class _Actor:
    handle: Any
    ready: Any
    """Reference to the first answer, the actor's location."""
    name: str = ""
    """The location, and a number, since several actors may share a location."""
    shard: int | None = None
    counts: tuple[int, ...] = (0, 0, 0, 0, 0)
    progress_ref: Any = None
    """Reference to the pending answer about the progress."""


@dataclass
class _Actors:
    job: Job
    actors: list[_Actor] = field(default_factory=list)
    tasks: dict[Any, _Actor] = field(default_factory=dict)
    next_count: float = 0.0
    num_failed_starts: int = 0
    retired: set[str] = field(default_factory=set)
    """Retired workers. Their actors stay alive, so that no new actor starts on their resources."""

    def __post_init__(self) -> None:
        import ray

        uses_gpu = engine(self.job.task.plan.recipe.engine).USES_GPU
        self.resource = "GPU" if ray.cluster_resources().get("GPU", 0) and uses_gpu else "CPU"
        self.task = ray.put(self.job.task)

    def free(self) -> list[str]:
        self._start_actors()
        self._name_ready_actors()
        return [a.name for a in self.actors if a.name and a.name not in self.retired and a.shard is None]

    def start(self, worker: str, shard: int, execution: Execution) -> None:
        actor = self._find(worker)
        actor.shard = shard
        self.tasks[actor.handle.make.remote(shard, execution)] = actor

    def poll(self, seconds: float, on_event: Callable[[Event], object]) -> None:
        import ray

        if not self.tasks:
            time.sleep(min(seconds, 0.1))
            return
        done, _ = ray.wait(list(self.tasks), num_returns=1, timeout=seconds)
        for reference in done:
            on_event(self._outcome(reference))
        self._poll_progress(on_event)

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

    def _find(self, worker: str) -> _Actor:
        return next(actor for actor in self.actors if actor.name == worker)

    def _outcome(self, reference: Any) -> Ended:
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

    def _poll_progress(self, on_event: Callable[[Event], object]) -> None:
        """Passes on the progress of the actors. An actor that hangs does not answer, so this never waits."""
        import ray

        for actor in [actor for actor in self.actors if actor.shard is not None]:
            actor.progress_ref = actor.progress_ref or actor.handle.progress.remote()
            if not ray.wait([actor.progress_ref], timeout=0)[0]:
                continue
            try:
                counts, before = ray.get(actor.progress_ref), actor.counts
            except ray.exceptions.RayError:
                # The actor's task fails, too, and `_outcome` handles that.
                continue
            actor.counts, actor.progress_ref = counts, None
            if counts != before:
                on_event(Images(actor.name, *(a - b for a, b in zip(counts[1:], before[1:], strict=True))))

    def _start_actors(self) -> None:
        """Starts actors up to the wanted number, which also replaces those that died."""
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

    def _name_ready_actors(self) -> None:
        import ray

        waiting = {actor.ready: actor for actor in self.actors if not actor.name}
        done, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0) if waiting else ([], [])
        reason = ""
        for reference in done:
            try:
                waiting[reference].name = self._free_name(ray.get(reference))
                self.num_failed_starts = 0
            except ray.exceptions.RayError as error:
                # The actor was lost before it answered, or it cannot start.
                self.actors.remove(waiting[reference])
                self.num_failed_starts += 1
                reason = str(error).strip().splitlines()[-1]
        if self.num_failed_starts >= MAX_FAILED_STARTS and not any(actor.name for actor in self.actors):
            raise UserError(
                f"no worker starts on the cluster ({reason}); install fakeit, with its extras, on the nodes"
            )

    def _free_name(self, location: str) -> str:
        """Returns the location with the first free number, so that a new process gets the name of its predecessor."""
        taken = {actor.name for actor in self.actors}
        return next(name for number in range(len(taken) + 1) if (name := f"{location}#{number}") not in taken)
