"""The runner for one machine: one worker process per GPU, or a single worker in this process without a GPU.

A process that died, hung or failed unexpectedly is killed and replaced: after a CUDA error, every later call fails.
"""

import contextlib
import os
import pickle
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from builders.coordination.attempt import attempt, unload_engine
from builders.coordination.job import Ended, Event, Images, Job, Report
from builders.coordination.policy import Problem
from builders.coordination.scheduler import run_shards
from builders.coordination.signals import Preempted
from builders.engines.base import engine
from builders.planning.plan import Plan
from builders.recipes.execution import Execution

SECONDS_TO_END = 10.0
"""Time that a process has to exit before it is killed."""


def num_workers(requested: int, plan: Plan) -> int:
    """Returns the requested number of workers; for 0, one per GPU, or one without a GPU."""
    return requested or max(len(_gpus(plan)), 1)


def prepare(address: str) -> None:
    """Does nothing: one machine needs no preparation."""


def run(job: Job) -> Report:
    """Makes the job's shards on this machine."""
    # Shards are rotated by a run-specific offset, so that concurrent runs rarely collide.
    if job.num_own is None:
        start = int(job.heartbeat.run.split("-")[2], 16) % len(job.shards)
        job = replace(job, shards=job.shards[start:] + job.shards[:start])
    gpus = _gpus(job.task.plan)
    workers = min(num_workers(job.num_workers, job.task.plan), len(job.shards))
    # A GPU error breaks its process for good, so GPUs are only used in processes that can be replaced.
    if workers <= 1 and not gpus:
        return run_shards(job, _InProcess(job))
    with _Processes(job, workers, gpus) as processes:
        return run_shards(job, processes)


def _gpus(plan: Plan) -> list[str]:
    """Returns the visible GPUs if the plan's engine uses GPUs, else none."""
    return visible_gpus() if engine(plan.recipe.engine).USES_GPU else []


def visible_gpus() -> list[str]:
    """Returns the GPUs that this process may use, in the notation of CUDA_VISIBLE_DEVICES."""
    if (listed := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in listed.split(",") if name.strip() and name.strip() != "-1"]
    try:
        import torch
    except ModuleNotFoundError:
        return []
    return [str(number) for number in range(torch.cuda.device_count())]


class _InProcess:
    """One worker in this process. It makes its shard while it is polled."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.assignment: tuple[int, Execution] | None = None
        self.is_retired = False

    def free(self) -> list[str]:
        return [] if self.assignment or self.is_retired else ["0"]

    def start(self, worker: str, shard: int, execution: Execution) -> None:
        self.assignment = (shard, execution)

    def poll(self, seconds: float, on_event: Callable[[Event], object]) -> None:
        if self.assignment is None:
            time.sleep(seconds)
            return
        shard, execution = self.assignment
        problem = attempt(self.job.task, shard, execution, lambda *counts: on_event(Images("0", *counts)))
        self.assignment = None
        on_event(Ended("0", shard, problem))

    def replace(self, worker: str) -> None:
        """Unloads the model, so that it is loaded again. The process itself cannot be replaced."""
        unload_engine()

    def retire(self, worker: str) -> None:
        self.is_retired = True

    def has_any(self) -> bool:
        return not self.is_retired


class _Processes:
    """One process per worker, started when the worker gets its first shard."""

    def __init__(self, job: Job, num_workers: int, gpus: list[str]) -> None:
        self.job, self.gpus = job, gpus
        self.workers = [str(number) for number in range(num_workers)]
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.shards: dict[str, int] = {}
        self.retired: set[str] = set()
        self.messages: queue.Queue[tuple[str, subprocess.Popen[bytes], Any]] = queue.Queue()

    def __enter__(self) -> "_Processes":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        for process in self.running.values():
            assert process.stdin
            with contextlib.suppress(OSError):
                process.stdin.close()
            if kind is Preempted or self.shards:
                process.terminate()
        for process in self.running.values():
            try:
                process.wait(SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                process.kill()

    def free(self) -> list[str]:
        return [worker for worker in self.workers if worker not in self.shards and worker not in self.retired]

    def start(self, worker: str, shard: int, execution: Execution) -> None:
        self.shards[worker] = shard
        if worker not in self.running:
            self._send(worker, self._spawn(worker), self.job.task)
        self._send(worker, self.running[worker], (shard, execution))

    def poll(self, seconds: float, on_event: Callable[[Event], object]) -> None:
        try:
            message = self.messages.get(timeout=seconds)
            while True:
                self._handle_message(*message, on_event)
                message = self.messages.get_nowait()
        except queue.Empty:
            return

    def replace(self, worker: str) -> None:
        if process := self.running.pop(worker, None):
            # A broken process may never exit, and the next one needs its GPU memory.
            process.kill()
            # It may hang in the kernel.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_TO_END)
        self.shards.pop(worker, None)

    def retire(self, worker: str) -> None:
        self.replace(worker)
        self.retired.add(worker)

    def has_any(self) -> bool:
        return len(self.retired) < len(self.workers)

    def _handle_message(
        self, worker: str, process: subprocess.Popen[bytes], message: Any, on_event: Callable[[Event], object]
    ) -> None:
        # The message may come from a process that was killed meanwhile.
        if self.running.get(worker) is not process:
            return
        if isinstance(message, tuple):
            on_event(Images(worker, *message))
            return
        if isinstance(message, EOFError):
            del self.running[worker]
            # The process may still be alive, if only its message could not be read.
            process.kill()
            cause = "the worker process died, perhaps because memory ran out (then use fewer --workers)"
            message = Problem(scope="worker", cause=cause, is_death=True)
        if worker in self.shards:
            on_event(Ended(worker, self.shards.pop(worker), message))

    def _spawn(self, worker: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[int(worker) % len(self.gpus)]
        command = [sys.executable, "-P", "-m", "builders.runners.worker"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self.running[worker] = process
        threading.Thread(target=self._read_messages, args=(worker, process), daemon=True).start()
        return process

    def _send(self, worker: str, process: subprocess.Popen[bytes], assignment: object) -> None:
        assert process.stdin
        # If the process has died, its output ends, and `_read_messages` handles that.
        with contextlib.suppress(OSError):
            pickle.dump(assignment, process.stdin)
            process.stdin.flush()

    def _read_messages(self, worker: str, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout
        while True:
            try:
                message = pickle.load(process.stdout)
            except Exception:
                # The process has ended, or this process cannot unpickle a plug-in's message.
                self.messages.put((worker, process, EOFError()))
                return
            self.messages.put((worker, process, message))
