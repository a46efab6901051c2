"""The runner for one machine: shards handed out to worker processes as they get free, or made right here by one.

Workers are spawned, never forked (a forked child hangs where its parent ran torch), and end with their parent.
"""

import multiprocessing as mp
import os
import signal
import threading
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_sentinel
from multiprocessing.queues import SimpleQueue

from builders.format.errors import UserError
from builders.making.plan import Plan
from builders.making.runners.base import Job, work

_progress: "SimpleQueue[int]"


def run(job: Job) -> None:
    num_workers = min(job.num_workers, len(job.shards))
    if num_workers <= 1:
        for shard in job.shards:
            work(job.plan, job.out, shard, job.on_images)
        return
    context = mp.get_context("spawn")
    progress: SimpleQueue[int] = context.SimpleQueue()
    with ProcessPoolExecutor(num_workers, context, initializer=_start_worker, initargs=(progress,)) as pool:
        pending = {pool.submit(_work, job.plan, job.out, shard) for shard in job.shards}
        try:
            while pending:
                done, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
                _drain(progress, job)
                for future in done:
                    future.result()
        except BrokenProcessPool:
            raise UserError(
                "a worker process died, perhaps for want of memory; use fewer --workers, or run again"
            ) from None
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)  # shards that are being made are finished first
            raise
    _drain(progress, job)


def _drain(progress: "SimpleQueue[int]", job: Job) -> None:
    while not progress.empty():
        job.on_images(progress.get())


def _start_worker(progress: "SimpleQueue[int]") -> None:
    global _progress
    _progress = progress
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker at once and without a word
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = mp.parent_process()
    assert parent is not None
    wait_for_sentinel([parent.sentinel])
    os._exit(1)


def _work(plan: Plan, out: str, shard: int) -> None:
    work(plan, out, shard, lambda num_images: _progress.put(num_images))
