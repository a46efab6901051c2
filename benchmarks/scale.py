"""A thousand workers over 65,000 shards: the real claims, sidecars and finalising, and pretend generation on a pretend clock.

python benchmarks/scale.py [NUM_SHARDS] [NUM_WORKERS]      # about 15 minutes; 4 GB of disk

Each worker is a task of a Slurm array: a run of its own, with its part of the shards, that helps the others when it is done.
Some die and are queued again, some are slow. What is made is real but small: ten pictures of one pixel a shard.
"""

import heapq
import multiprocessing as mp
import os
import random
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

from builders.classes.class_list import ClassEntry
from builders.format.storage import Storage
from builders.images.encode import encode_image
from builders.making import claims as claims_module
from builders.making.claims import LEASE, Claims
from builders.making.engines.base import Painted
from builders.making.finalise import clean_up, finalise
from builders.making.output import open_output
from builders.making.plan import Plan
from builders.making.recipe import Recipe
from builders.making.runners.base import SECONDS_BETWEEN_LOOKS, Drive, Job, Outcome
from builders.making.runners.slurm import in_task_order
from builders.making.shard import make_shard
from builders.making.status import read_status
from tests.acceptance.record import record

SECONDS_A_SHARD = 100.0
"""About 1,000 images at 10 a second."""
SHARE_SLOW, SLOWNESS = 0.01, 4.0
SHARE_DYING = 0.0005
"""Of the attempts at a shard, in the midst of which the worker's node is lost."""
SECONDS_TO_REQUEUE = 300.0

PRINTED_EVERY = 1000
"""Shards, for whoever watches."""

PICTURE = encode_image(np.zeros((1, 1, 3), np.uint8), "jpg", 75)


def paint(samples: Any) -> list[Painted]:
    return [Painted(PICTURE) for _ in samples]


@dataclass
class Clock:
    now: float = 1.0e9

    def __call__(self) -> float:
        return self.now


class Times:
    """Real seconds spent, by what they were spent on."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = {}

    def of(self, name: str, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        try:
            return call()
        finally:
            self.spent.setdefault(name, []).append(time.perf_counter() - start)

    def mean_ms(self, name: str) -> float:
        return 1000 * statistics.mean(self.spent[name])

    def median_ms(self, name: str) -> float:
        return 1000 * statistics.median(self.spent[name])

    def longest_ms(self, name: str) -> float:
        return 1000 * max(self.spent[name])


class Pretend:
    """An executor with room for one shard, whose end the simulation brings about."""

    def __init__(self) -> None:
        self.shard: int | None = None

    def room(self) -> int:
        return int(self.shard is None)

    def submit(self, shard: int) -> None:
        self.shard = shard

    def wait(self, seconds: float, on_progress: Callable[[], object]) -> list[Outcome]:
        return []

    def num_images(self) -> int:
        return 0

    def bench(self, worker: str) -> bool:
        return False


class Worker:
    """A task of the array; made anew when it is queued again."""

    def __init__(self, index: int, num_workers: int, plan: Plan, out: str, clock: Clock, slowness: float) -> None:
        self.index, self.plan, self.slowness = index, plan, slowness
        self.claims = Claims(Storage(out), runner="slurm", clock=clock)
        self.claims.run = replace(
            self.claims.run, machine=f"node {index}"
        )  # so that only its lease tells whether it lives
        claims_module._OPEN.add(self.claims.run.id)
        self.claims.beat()
        self.executor = Pretend()
        shards = in_task_order(range(plan.num_shards), index, num_workers)
        job = Job(plan=plan, out=out, shards=shards, claims=self.claims, waits_for_others=False)
        self.drive = Drive(job, self.executor, clock)
        self.is_over = False

    def end(self) -> None:
        self.is_over = True
        claims_module._OPEN.discard(self.claims.run.id)


@dataclass
class Happened:
    """On the pretend clock, in seconds, and what was counted."""

    makespan: float = 0.0
    made: int = 0
    attempts: int = 0
    deaths: int = 0


class Simulation:
    """Events in the order of a pretend clock; what workers do at each is done for real, and timed."""

    def __init__(self, plan: Plan, out: str, num_workers: int, times: Times) -> None:
        self.plan, self.out, self.num_workers, self.times = plan, out, num_workers, times
        self.rng, self.clock, self.happened = random.Random(0), Clock(), Happened()
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.num_events = 0

    def run(self) -> Happened:
        begin = self.clock.now
        for index in range(self.num_workers):
            self.start(index, SLOWNESS if self.rng.random() < SHARE_SLOW else 1.0)
        while self.events:
            self.clock.now, _, event = heapq.heappop(self.events)
            event()
        self.happened.makespan -= begin
        return self.happened

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        self.num_events += 1
        heapq.heappush(self.events, (self.clock.now + seconds, self.num_events, event))

    def start(self, index: int, slowness: float) -> None:
        worker = Worker(index, self.num_workers, self.plan, self.out, self.clock, slowness)
        self.after(LEASE / 4, lambda: self.beat(worker))
        self.next_shard(worker, "first claim")

    def beat(self, worker: Worker) -> None:
        if not worker.is_over:
            worker.claims.beat()
            self.after(LEASE / 4, lambda: self.beat(worker))

    def next_shard(self, worker: Worker, name: str) -> None:
        self.times.of(name, worker.drive.hand_out)
        if worker.executor.shard is None and not worker.drive.is_over():
            self.after(SECONDS_BETWEEN_LOOKS, lambda: self.next_shard(worker, "claim"))
            return
        if worker.executor.shard is None:  # nothing is left that nobody is at
            worker.end()
            worker.claims.close()
            return
        self.happened.attempts += 1
        seconds = SECONDS_A_SHARD * self.rng.uniform(0.9, 1.1) * worker.slowness
        if self.rng.random() < SHARE_DYING:
            self.happened.deaths += 1
            worker.end()
            requeued = self.rng.random() * seconds + SECONDS_TO_REQUEUE
            self.after(requeued, lambda: self.start(worker.index, worker.slowness))
        else:
            self.after(seconds, lambda: self.finish(worker))

    def finish(self, worker: Worker) -> None:
        shard, worker.executor.shard = worker.executor.shard, None
        assert shard is not None
        self.times.of("make", lambda: make_shard(self.plan, shard, paint, {}, Storage(self.out), lambda _: None))
        self.times.of("finish", lambda: worker.drive.take_back(Outcome(shard=shard)))
        self.happened.makespan = self.clock.now
        self.happened.made += 1
        if self.happened.made % PRINTED_EVERY == 0:
            print(
                self.happened, *(f"{name} {self.times.mean_ms(name):.2f} ms" for name in self.times.spent), flush=True
            )
        self.next_shard(worker, "claim")


def plan_of(num_shards: int, per_shard: int) -> Plan:
    classes = tuple(
        ClassEntry(wnid=f"n{number:08d}", name=f"class {number}", base_count=1) for number in range(per_shard)
    )
    options = {"shard_size": per_shard, "batch_size": per_shard, "prompt": "c"}
    recipe = Recipe(name="scale/pretend", classes=classes, model="pretend", **options)  # type: ignore[arg-type]
    return Plan(recipe, num_shards)


def peak_gib() -> float:
    status = Path("/proc/self/status").read_text()  # what getrusage tells is inherited from the parent
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 2**20  # type: ignore[index]


def finalise_in_process(plan: Plan, out: str) -> float:
    manifest = finalise(open_output(plan, Storage(out)))
    assert len(manifest.shards) == plan.num_shards
    return peak_gib()


def main(num_shards: int, num_workers: int, folder: Path) -> None:
    times = Times()
    plan, out = plan_of(num_shards, 10), str(folder / "clone")
    open_output(plan, Storage(out))
    start = time.perf_counter()
    happened = Simulation(plan, out, num_workers, times).run()
    simulated, before = time.perf_counter() - start, peak_gib()
    told = times.of("status", lambda: read_status(out))
    assert told.num_shards_done == num_shards
    with ProcessPoolExecutor(1, mp.get_context("spawn")) as another:
        peak_finalising = times.of("finalise", another.submit(finalise_in_process, plan, out).result)
        times.of("clean up", lambda: clean_up(open_output(plan, Storage(out)), []))
    large, large_out = plan_of(300, 1000), str(folder / "large")
    open_output(large, Storage(large_out))
    for shard in range(large.num_shards):
        times.of("make 1,000", partial(make_shard, large, shard, paint, {}, Storage(large_out), lambda _: None))
    times.of("finalise 1,000", lambda: finalise(open_output(large, Storage(large_out))))
    claim_ms = 1000 * (sum(times.spent["first claim"]) + sum(times.spent["claim"])) / num_shards
    ideal = num_shards * SECONDS_A_SHARD / num_workers
    rows = {
        f"pretend makespan, of the ideal {ideal:,.0f} s": f"{happened.makespan:,.0f} s ({happened.makespan / ideal:.3f})",
        "nodes lost": f"{happened.deaths}",
        "attempts beyond one a shard": f"{happened.attempts - num_shards}",
        "claim, ms a shard (find one that is free, take it)": f"{claim_ms:.2f}",
        "the median claim, and the longest (looking at all that is left), ms": (
            f"{times.median_ms('claim'):.2f}, {times.longest_ms('claim'):.0f}"
        ),
        "finish, ms a shard (forget failures, give the claim up)": f"{times.mean_ms('finish'):.2f}",
        "claim + finish, ms a shard": f"{claim_ms + times.mean_ms('finish'):.2f}",
        "tar and sidecar of 10 pictures, ms": f"{times.mean_ms('make'):.2f}",
        "`status`, s": f"{times.mean_ms('status') / 1000:.1f}",
        "finalise, s": f"{times.mean_ms('finalise') / 1000:.0f}",
        "clean up, s": f"{times.mean_ms('clean up') / 1000:.0f}",
        "peak memory of a process that finalises, GiB": f"{peak_finalising:.2f}",
        "peak memory of the simulation, all runs in one process, GiB": f"{before:.2f}",
        "tar and sidecar of 1,000 pictures, ms (encoding left out)": f"{times.mean_ms('make 1,000'):.0f}",
        "finalise with 1,000 pictures a shard, ms a shard": f"{times.mean_ms('finalise 1,000') / large.num_shards:.1f}",
        "the simulation itself, s": f"{simulated:.0f}",
    }
    record("scale", f"{num_workers:,} workers over {num_shards:,} shards, simulated", [
        f"`python benchmarks/scale.py {num_shards} {num_workers}`: tasks of an array, each a run of its own, over shards of 10",
        f"one-pixel pictures on a local disk; a shard takes {SECONDS_A_SHARD:.0f} s ± 10 % on the pretend clock,",
        f"{SHARE_SLOW:.0%} of the workers are {SLOWNESS:g} times as slow, and in {SHARE_DYING:.2%} of the attempts the node",
        f"is lost (queued again after {SECONDS_TO_REQUEUE:.0f} s). Claims, sidecars, sharing out and finalising are the real",
        "code.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
    ])  # fmt: skip


if __name__ == "__main__":
    arguments = [int(word) for word in sys.argv[1:]] or [65_000, 1000]
    root = tempfile.mkdtemp(dir=os.environ.get("TMPDIR"))
    try:
        main(arguments[0], arguments[1] if len(arguments) > 1 else 1000, Path(root))
    finally:
        shutil.rmtree(root)
