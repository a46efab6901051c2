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

from builders.format.errors import UserError, missing_extra
from builders.making.failures import Problem
from builders.making.plan import Plan
from builders.making.runners.base import Job, Outcome, Report, attempt, drive, in_own_order

SECONDS_TO_CONNECT = 15
MAX_FAILED_STARTS = 5
SECONDS_BETWEEN_COUNTS = 5.0
"""Of what the cluster has."""


def num_workers(asked: int, plan: Plan) -> int:
    return asked


def prepare(address: str) -> None:
    """Connects to the cluster."""
    _connect(address or "auto")


def run(job: Job) -> Report:
    """Makes the shards on the cluster."""
    executor = _Actors(job)
    try:
        return drive(in_own_order(job), executor)
    finally:
        executor.end()


def _connect(address: str) -> None:
    try:
        import ray
    except ModuleNotFoundError:
        raise missing_extra("ray", "ray") from None
    if ray.is_initialized():
        return
    try:
        _reach(address)
        ray.init(address=None if address == "local" else address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise UserError(
            f"no Ray cluster at '{address}' ({reason}); start one with 'ray start --head', or give --address local"
        ) from None


def _reach(address: str) -> None:
    """Whether anybody listens at HOST:PORT; Ray itself would end the process where nobody does."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), SECONDS_TO_CONNECT).close()


class Maker:
    """What runs on a node: makes shards with a model that stays loaded."""

    def __init__(self, plan: Plan, out: str) -> None:
        self.plan, self.out = plan, out

    def place(self) -> str:
        """Node, and GPU if there is one."""
        import ray

        context = ray.get_runtime_context()
        return f"{context.get_node_id()}/{','.join(context.get_accelerator_ids().get('GPU', []))}"

    def make(self, shard: int) -> Problem | None:
        return attempt(self.plan, self.out, shard, lambda num_images: None)


@dataclass
class _Actor:
    handle: Any
    ready: Any
    """Reference to its first answer, its place."""
    place: str = ""
    shard: int | None = None


@dataclass
class _Actors:
    """An executor."""

    job: Job
    actors: list[_Actor] = field(default_factory=list)
    tasks: dict[Any, _Actor] = field(default_factory=dict)
    next_count: float = 0.0
    num_failed_starts: int = 0
    benched: set[str] = field(default_factory=set)
    """Places that get nothing more; an actor that is there stays, so that no other is put there."""

    def __post_init__(self) -> None:
        import ray

        resources = ray.cluster_resources()
        self.resource = "GPU" if resources.get("GPU", 0) and self.job.plan.recipe.engine == "diffusion" else "CPU"
        self.plan = ray.put(self.job.plan)

    def room(self) -> int:
        self._grow()
        self._look_for_ready()
        return len(self._free())

    def submit(self, shard: int) -> None:
        actor = self._free()[0]
        actor.shard = shard
        self.tasks[actor.handle.make.remote(shard)] = actor

    def wait(self, seconds: float, on_progress: Callable[[], object]) -> list[Outcome]:
        import ray

        if not self.tasks:
            time.sleep(min(seconds, 0.1))
            return []
        done, _ = ray.wait(list(self.tasks), num_returns=1, timeout=seconds)
        return [self._outcome(reference) for reference in done]

    def num_images(self) -> int:
        return 0

    def bench(self, worker: str) -> bool:
        self.benched.add(worker)
        return any(actor.place not in self.benched for actor in self.actors)

    def _free(self) -> list[_Actor]:
        return [
            actor for actor in self.actors if actor.place and actor.place not in self.benched and actor.shard is None
        ]

    def end(self) -> None:
        import ray

        for actor in self.actors:
            ray.kill(actor.handle)

    def _outcome(self, reference: Any) -> Outcome:
        import ray

        actor = self.tasks.pop(reference)
        shard, actor.shard = actor.shard, None
        assert shard is not None
        try:
            problem = ray.get(reference)
            if problem and problem.is_unexpected:  # its process may be broken; another takes its place
                self.actors.remove(actor)
                ray.kill(actor.handle)
            return Outcome(shard=shard, worker=actor.place, problem=problem)
        except ray.exceptions.RayError:
            self.actors.remove(actor)
            is_lost = actor.place.partition("/")[0] not in {node["NodeID"] for node in ray.nodes() if node["Alive"]}
            cause = "its node was lost" if is_lost else "the worker process died, perhaps for want of memory"
            problem = Problem(cause=cause, is_death=True)
            return Outcome(shard=shard, worker=actor.place, problem=problem, is_fault_of_machine=is_lost)

    def _grow(self) -> None:
        """Starts actors up to the number wanted; those that died have left room."""
        import ray

        now = time.monotonic()
        if now < self.next_count and self.actors:
            return
        self.next_count = now + SECONDS_BETWEEN_COUNTS
        has = int(ray.cluster_resources().get(self.resource, 0))
        wanted = min(self.job.num_workers or max(has, 1), len(self.job.shards))
        options = {"num_gpus": 1, "num_cpus": 1} if self.resource == "GPU" else {"num_cpus": 1}
        for _ in range(len(self.actors), wanted):
            handle = ray.remote(Maker).options(max_restarts=0, **options).remote(self.plan, self.job.out)
            self.actors.append(_Actor(handle, handle.place.remote()))

    def _look_for_ready(self) -> None:
        import ray

        waiting = {actor.ready: actor for actor in self.actors if not actor.place}
        done, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0) if waiting else ([], [])
        reason = ""
        for reference in done:
            try:
                waiting[reference].place = ray.get(reference)
                self.num_failed_starts = 0
            except ray.exceptions.RayError as error:  # lost before it answered, or it cannot start
                self.actors.remove(waiting[reference])
                self.num_failed_starts += 1
                reason = str(error).strip().splitlines()[-1]
        if self.num_failed_starts >= MAX_FAILED_STARTS and not any(actor.place for actor in self.actors):
            raise UserError(
                f"no worker starts on the cluster ({reason}); install fakeit, with its extras, on the nodes"
            )
