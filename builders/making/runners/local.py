"""The runner for one machine: shards handed out to worker processes as they get free, or made right here by one without a GPU.

One worker for each GPU. Workers are spawned, never forked (a forked child hangs where its parent ran torch), and end with
their parent. Each is an executor of its own, so the death of one touches no other. Another takes the place of one that died,
or that failed as nobody expected: after a CUDA error all that its process tries would fail.
"""

import contextlib
import multiprocessing as mp
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_sentinel
from multiprocessing.sharedctypes import RawArray
from types import FrameType
from typing import Any

from builders.making.failures import Problem
from builders.making.plan import Plan
from builders.making.runners.base import Job, Outcome, Report, attempt, drive, in_own_order
from builders.making.stopping import Dropped

_images: Any
_slot: int
_is_making = False


def num_workers(asked: int, plan: Plan) -> int:
    """One for each GPU, or one, unless others are asked for."""
    return asked or max(len(_gpus(plan)), 1)


def prepare(address: str) -> None:
    """Nothing is needed."""


def run(job: Job) -> Report:
    return run_in_order(in_own_order(job))


def run_in_order(job: Job) -> Report:
    """Takes the shards up in the order in which the job has them."""
    workers = min(num_workers(job.num_workers, job.plan), len(job.shards))
    if workers <= 1 and not _gpus(job.plan):  # a process that a GPU may break is another one, which can be replaced
        return drive(job, _Here(job))
    with _Workers(job, workers) as executor:
        return drive(job, executor)


def _gpus(plan: Plan) -> list[str]:
    """Those that making the plan's shards makes use of."""
    return visible_gpus() if plan.recipe.engine == "diffusion" else []


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES would name them."""
    if (listed := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in listed.split(",") if name.strip() and name.strip() != "-1"]
    try:
        import torch
    except ModuleNotFoundError:
        return []
    return [str(number) for number in range(torch.cuda.device_count())]


class _Here:
    """One shard at a time, in this process."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.shard: int | None = None
        self.made = 0

    def room(self) -> int:
        return int(self.shard is None)

    def submit(self, shard: int) -> None:
        self.shard = shard

    def wait(self, seconds: float, on_progress: Callable[[], object]) -> list[Outcome]:
        if self.shard is None:
            time.sleep(seconds)
            return []
        shard = self.shard

        def tell(num_images: int) -> None:
            self.made += num_images
            on_progress()

        try:
            problem = attempt(self.job.plan, self.job.out, shard, tell)
        finally:
            self.shard, self.made = None, 0
        return [Outcome(shard=shard, problem=problem)]

    def num_images(self) -> int:
        return self.made

    def bench(self, worker: str) -> bool:
        return False


class _Workers:
    """A process for each of some slots; a slot's process that dies is replaced."""

    def __init__(self, job: Job, num_slots: int) -> None:
        self.job, self.context = job, mp.get_context("spawn")
        self.images = RawArray("q", num_slots)
        """Of the shard that is in the making in each slot. Only the slot's own process writes there, so no lock is needed that
        a killed one might keep."""
        self.pids = RawArray("q", num_slots)
        """Of each slot's process."""
        self.gpus = _gpus(job.plan)
        self.pools: list[ProcessPoolExecutor | None] = [None] * num_slots
        self.tasks: dict[Future[Problem | None], tuple[int, int]] = {}
        """To slot and shard."""
        self.benched: set[int] = set()
        """Slots that get nothing more."""

    def __enter__(self) -> "_Workers":
        return self

    def __exit__(self, *exception: object) -> None:
        if exception[0] is Dropped:
            self.drop()
        for pool in self.pools:
            if pool:
                pool.shutdown(wait=True, cancel_futures=True)  # shards that are being made are finished first

    def drop(self) -> None:
        """Ends the workers at once."""
        for process in mp.active_children():
            process.terminate()

    def room(self) -> int:
        return len(self._free_slots())

    def submit(self, shard: int) -> None:
        slot = self._free_slots()[0]
        self.images[slot] = 0
        pool = self.pools[slot] or self._start(slot)
        with _hidden_main():
            try:
                future = pool.submit(_work, self.job.plan, self.job.out, shard)
            except BrokenProcessPool:  # it died while it had nothing to do
                future = self._start(slot).submit(_work, self.job.plan, self.job.out, shard)
        self.tasks[future] = (slot, shard)

    def wait(self, seconds: float, on_progress: Callable[[], object]) -> list[Outcome]:
        if not self.tasks:
            time.sleep(seconds)
            return []
        done, _ = wait(self.tasks, timeout=seconds, return_when=FIRST_COMPLETED)
        return [self._outcome(future) for future in done]

    def num_images(self) -> int:
        return sum(self.images[slot] for slot, _ in self.tasks.values())

    def bench(self, worker: str) -> bool:
        self.benched.add(int(worker))
        return len(self.benched) < len(self.pools)

    def _free_slots(self) -> list[int]:
        return sorted(set(range(len(self.pools))) - {slot for slot, _ in self.tasks.values()} - self.benched)

    def _outcome(self, future: "Future[Problem | None]") -> Outcome:
        slot, shard = self.tasks.pop(future)
        try:
            problem = future.result()
            if problem and problem.is_unexpected:
                self._retire(slot)
            return Outcome(shard=shard, worker=str(slot), problem=problem)
        except BrokenProcessPool:
            self.pools[slot] = None
            cause = "the worker process died, perhaps for want of memory (then use fewer --workers)"
            return Outcome(shard=shard, worker=str(slot), problem=Problem(cause=cause, is_death=True))

    def _retire(self, slot: int) -> None:
        """Has the next shard of a slot made by another process, and kills this one: a broken one may never end by itself, and
        the next one needs its GPU's memory."""
        pool, self.pools[slot] = self.pools[slot], None
        if pool:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pids[slot], signal.SIGKILL)
            pool.shutdown()

    def _start(self, slot: int) -> ProcessPoolExecutor:
        gpu = self.gpus[slot % len(self.gpus)] if self.gpus else None
        arguments = (slot, self.images, self.pids, gpu)
        pool = ProcessPoolExecutor(1, self.context, initializer=_start_worker, initargs=arguments)
        self.pools[slot] = pool
        return pool


@contextlib.contextmanager
def _hidden_main() -> Iterator[None]:
    """Has processes started within not run the user's script again, which may well lack the `if __name__ == "__main__"` that
    multiprocessing asks for: workers need nothing of it."""
    main = sys.modules["__main__"]
    hidden: dict[str, Any] = {name: vars(main).pop(name) for name in ("__file__", "__spec__") if name in vars(main)}
    main.__spec__ = None
    try:
        yield
    finally:
        vars(main).update(hidden)


def _start_worker(slot: int, images: Any, pids: Any, gpu: str | None) -> None:
    global _slot, _images
    _slot, _images = slot, images
    pids[slot] = os.getpid()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # before torch looks for any
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker at once and without a word
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _drop)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _drop(number: int, frame: FrameType | None) -> None:
    if _is_making:
        raise Dropped
    os._exit(0)


def _end_with_parent() -> None:
    parent = mp.parent_process()
    assert parent is not None
    wait_for_sentinel([parent.sentinel])
    os._exit(1)


def _work(plan: Plan, out: str, shard: int) -> Problem | None:
    def tell(num_images: int) -> None:
        _images[_slot] += num_images

    global _is_making
    _is_making = True
    try:
        return attempt(plan, out, shard, tell)
    except Dropped:  # what was half made is swept up
        os._exit(0)
    finally:
        _is_making = False
