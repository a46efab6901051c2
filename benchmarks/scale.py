"""Simulates a thousand runs over 65,000 shards: coordination is real, generation and the clock are simulated.

python benchmarks/scale.py [NUM_SHARDS] [NUM_WORKERS]      # about 15 minutes; 4 GB of disk

Each run is a task of a Slurm array: it has its share of the shards and helps the others when it is done. Some runs die
and are queued again, some are slow. The shards are real but small: ten images of one pixel each. Heartbeats, sidecars
and finalizing are real. Requests are counted as an object store would: a listing counts once per thousand names.
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
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

from builders.classes.class_list import ClassEntry
from builders.coordination.finalize import clean_up, finalize
from builders.coordination.heartbeat import LEASE, Heartbeat
from builders.coordination.job import Ended, Event, Job, Task
from builders.coordination.output import missing_shards, read_state, write_target
from builders.coordination.scheduler import SECONDS_BETWEEN_LOOKS, _Run
from builders.coordination.status import read_status
from builders.engines.base import GeneratedImage
from builders.format.names import RUNS
from builders.generation.generate_shard import generate_shard_tar
from builders.images.encode import encode_image
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
from builders.runners.slurm import in_task_order
from builders.storage.base import open_storage
from builders.storage.local import LocalStorage
from tests.acceptance.record import record

SECONDS_A_SHARD = 100.0
"""Simulated seconds per shard: about 1,000 images at 10 per second."""
SHARE_SLOW, SLOWNESS = 0.01, 4.0
"""Fraction of slow workers, and the factor on their times."""
SHARE_DYING = 0.0005
"""Fraction of the attempts at a shard during which the worker's node is lost."""
SECONDS_TO_REQUEUE = 300.0
PRINTED_EVERY = 1000
"""Number of shards between lines of progress."""

IMAGE = encode_image(np.zeros((1, 1, 3), np.uint8), "jpg", 75)
PAGE = 1000
"""Number of names that a store lists in one request."""
EXECUTION = Execution()


class OnePixelEngine:
    """An engine whose images are one pixel."""

    environment: dict[str, str] = {}

    def __call__(self, samples: Any) -> list[GeneratedImage]:
        return [GeneratedImage(IMAGE) for _ in samples]


def make(plan: Plan, shard: int, out: str) -> None:
    for _ in generate_shard_tar(plan, shard, OnePixelEngine(), EXECUTION, open_storage(out)):
        pass


@dataclass
class Clock:
    """The simulated clock, in seconds."""

    now: float = 1.0e9

    def __call__(self) -> float:
        return self.now


class Times:
    """Real seconds of each kind of step."""

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


class CountedStorage(LocalStorage):
    """A local store with simulated modification times that counts requests as an object store would."""

    def __init__(self, root: str, clock: Clock) -> None:
        super().__init__(root)
        self.clock, self.requests = clock, Counter[str]()

    def names(self, folder: str) -> list[str]:
        found = super().names(folder)
        self.requests["names"] += max(1, -(-len(found) // PAGE))
        return found

    def times(self, folder: str) -> dict[str, datetime | None]:
        found = super().times(folder)
        self.requests["own" if not found else "times"] += max(1, -(-len(found) // PAGE)) if found else 0
        # `times` calls `names`, which has counted the same listing.
        self.requests["names"] -= max(1, -(-len(found) // PAGE))
        return found

    def exists(self, name: str) -> bool:
        self.requests["exists"] += 1
        return super().exists(name)

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        self.requests["read"] += 1
        return super().read(name, start, end)

    def write(self, name: str, content: bytes) -> None:
        self.requests["heartbeat" if name.startswith(RUNS) else "write"] += 1
        super().write(name, content)
        os.utime(self.path(name), (self.clock.now, self.clock.now))

    def remove(self, name: str) -> None:
        self.requests["heartbeat" if name.startswith(RUNS) else "remove"] += 1
        super().remove(name)


class OneWorker:
    """Workers that hold one shard at a time; the simulation decides when it ends."""

    def __init__(self) -> None:
        self.shard: int | None = None

    def free(self) -> list[str]:
        return [] if self.shard is not None else ["0"]

    def start(self, worker: str, shard: int, execution: Execution) -> None:
        self.shard = shard

    def poll(self, seconds: float, on_event: Callable[[Event], object]) -> None: ...

    def replace(self, worker: str) -> None: ...

    def retire(self, worker: str) -> None: ...

    def has_any(self) -> bool:
        return True


class Worker:
    """A task of the array; a task that is queued again is a new object."""

    def __init__(self, index: int, num_workers: int, plan: Plan, storage: CountedStorage, slowness: float) -> None:
        self.index, self.plan, self.slowness = index, plan, slowness
        self.heartbeat = Heartbeat(storage, runner="slurm")
        # The id names another machine, so other runs know only by the lease whether this one lives.
        self.heartbeat.run = f"{index:08x}-1-{self.heartbeat.run[-6:]}"
        self.heartbeat._name = self.heartbeat._named("")
        self.heartbeat.beat()
        missing = missing_shards(plan, read_state(storage), range(plan.num_shards))
        self.workers = OneWorker()
        job = Job(
            task=Task(plan=plan, out=storage.root),
            execution=EXECUTION,
            heartbeat=self.heartbeat,
            shards=in_task_order(missing, index, num_workers),
            num_own=sum(shard % num_workers == index for shard in missing),
            waits_for_others=False,
        )
        self.run = _Run(job, self.workers, storage.clock)
        self.is_over = False


@dataclass
class Outcome:
    """Counts of a simulation."""

    makespan: float = 0.0
    """Simulated seconds from the start to the last shard."""
    made: int = 0
    """Number of shards made, including those made twice."""
    attempts: int = 0
    deaths: int = 0


class Simulation:
    """Processes events in the order of the simulated clock; the work of the runs at each event is real and timed."""

    def __init__(self, plan: Plan, storage: CountedStorage, num_workers: int, times: Times) -> None:
        self.plan, self.storage, self.num_workers, self.times = plan, storage, num_workers, times
        self.rng, self.clock, self.outcome = random.Random(0), storage.clock, Outcome()
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.num_events = 0

    def run(self) -> Outcome:
        begin = self.clock.now
        for index in range(self.num_workers):
            self.start(index, SLOWNESS if self.rng.random() < SHARE_SLOW else 1.0)
        while self.events:
            self.clock.now, _, event = heapq.heappop(self.events)
            event()
        self.outcome.makespan -= begin
        return self.outcome

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        self.num_events += 1
        heapq.heappush(self.events, (self.clock.now + seconds, self.num_events, event))

    def start(self, index: int, slowness: float) -> None:
        worker = self.times.of("start", lambda: Worker(index, self.num_workers, self.plan, self.storage, slowness))
        self.after(LEASE / 4, lambda: self.beat(worker))
        self.next_shard(worker)

    def beat(self, worker: Worker) -> None:
        if not worker.is_over:
            worker.heartbeat.beat()
            self.after(LEASE / 4, lambda: self.beat(worker))

    def next_shard(self, worker: Worker) -> None:
        self.times.of("take", worker.run._hand_out)
        if worker.workers.shard is None:
            worker.is_over = worker.run._is_over()
            # It is over when every shard is finished or claimed by another run.
            if worker.is_over:
                self.storage.remove(next(iter(worker.heartbeat.files())))
            else:
                self.after(SECONDS_BETWEEN_LOOKS, lambda: self.next_shard(worker))
            return
        self.outcome.attempts += 1
        seconds = SECONDS_A_SHARD * self.rng.uniform(0.9, 1.1) * worker.slowness
        if self.rng.random() < SHARE_DYING:
            self.outcome.deaths += 1
            worker.is_over = True
            requeued = self.rng.random() * seconds + SECONDS_TO_REQUEUE
            self.after(requeued, lambda: self.start(worker.index, worker.slowness))
        else:
            self.after(seconds, lambda: self.finish(worker))

    def finish(self, worker: Worker) -> None:
        shard, worker.workers.shard = worker.workers.shard, None
        assert shard is not None
        self.times.of("make", lambda: make(self.plan, shard, self.storage.root))
        self.times.of("finish", lambda: worker.run._on_event(Ended("0", shard, None)))
        self.outcome.makespan = self.clock.now
        self.outcome.made += 1
        if self.outcome.made % PRINTED_EVERY == 0:
            print(self.outcome, *(f"{name} {self.times.mean_ms(name):.2f} ms" for name in self.times.spent), flush=True)
        self.next_shard(worker)


def plan_of(num_shards: int, per_shard: int) -> Plan:
    classes = tuple(
        ClassEntry(wnid=f"n{number:08d}", name=f"class {number}", base_count=1) for number in range(per_shard)
    )
    options = {"shard_size": per_shard, "prompt": "c"}
    recipe = Recipe(name="scale/simulated", classes=classes, model="simulated", **options)  # type: ignore[arg-type]
    return Plan(recipe, num_shards)


def peak_gib() -> float:
    # getrusage would include the peak of the parent process.
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 2**20  # type: ignore[index]


def finalize_in_process(plan: Plan, out: str) -> float:
    manifest = finalize(plan, read_state(open_storage(out)))
    assert len(manifest.shards) == plan.num_shards
    return peak_gib()


def main(num_shards: int, num_workers: int, folder: Path) -> None:
    times = Times()
    plan, out = plan_of(num_shards, 10), str(folder / "clone")
    write_target(plan, read_state(open_storage(out)))
    storage = CountedStorage(out, Clock())
    start = time.perf_counter()
    outcome = Simulation(plan, storage, num_workers, times).run()
    simulated, before = time.perf_counter() - start, peak_gib()
    status = times.of("status", lambda: read_status(out))
    assert status.num_shards_done == num_shards
    with ProcessPoolExecutor(1, mp.get_context("spawn")) as another:
        peak_finalizing = times.of("finalize", another.submit(finalize_in_process, plan, out).result)
        times.of("clean up", lambda: clean_up(plan, read_state(open_storage(out)), []))
    large, large_out = plan_of(300, 1000), str(folder / "large")
    write_target(large, read_state(open_storage(large_out)))
    for shard in range(large.num_shards):
        times.of("make 1,000", partial(make, large, shard, large_out))
    times.of("finalize 1,000", lambda: finalize(large, read_state(open_storage(large_out))))
    take_ms = 1000 * (sum(times.spent["take"]) + sum(times.spent["start"])) / num_shards
    ideal = num_shards * SECONDS_A_SHARD / num_workers
    counted = {kind: count for kind, count in storage.requests.items() if kind not in ("heartbeat", "own") and count}
    shown = ", ".join(f"{count / num_shards:.2f} {kind}" for kind, count in sorted(counted.items()))
    rows = {
        f"simulated makespan (ideal: {ideal:,.0f} s)": f"{outcome.makespan:,.0f} s ({outcome.makespan / ideal:.3f})",
        "nodes lost": f"{outcome.deaths}",
        "shards made twice (required: at most 1 %)": (
            f"{outcome.made - num_shards} ({(outcome.made - num_shards) / num_shards:.2%})"
        ),
        "requests per shard without tar, sidecar and own heartbeat (required: at most 4)": (
            f"{sum(counted.values()) / num_shards:.2f} ({shown})"
        ),
        "requests per shard for the own heartbeat": f"{storage.requests['heartbeat'] / num_shards:.1f}",
        "taking a shard (poll other runs, find one, announce it), ms per shard": f"{take_ms:.2f}",
        "median and longest time to take a shard, ms": f"{times.median_ms('take'):.2f}, {times.longest_ms('take'):.0f}",
        "finishing a shard, ms per shard": f"{times.mean_ms('finish'):.2f}",
        "tar and sidecar of 10 images, ms": f"{times.mean_ms('make'):.2f}",
        "`status`, s": f"{times.mean_ms('status') / 1000:.1f}",
        "finalizing, s": f"{times.mean_ms('finalize') / 1000:.0f}",
        "cleaning up, s": f"{times.mean_ms('clean up') / 1000:.0f}",
        "peak memory of the finalizing process, GiB": f"{peak_finalizing:.2f}",
        "peak memory of the simulation with all runs in one process, GiB": f"{before:.2f}",
        "tar and sidecar of 1,000 images without encoding, ms": f"{times.mean_ms('make 1,000'):.0f}",
        "finalizing with 1,000 images per shard, ms per shard": f"{times.mean_ms('finalize 1,000') / large.num_shards:.1f}",
        "duration of the simulation, s": f"{simulated:.0f}",
    }
    record("scale", f"{num_workers:,} runs over {num_shards:,} shards, simulated", [
        f"`python benchmarks/scale.py {num_shards} {num_workers}`: tasks of an array, each a run of its own, over shards of 10",
        f"one-pixel images on a local disk. A shard takes {SECONDS_A_SHARD:.0f} s ± 10 % on the simulated clock,",
        f"{SHARE_SLOW:.0%} of the workers are {SLOWNESS:g} times as slow, and in {SHARE_DYING:.2%} of the attempts the node is",
        f"lost (and queued again after {SECONDS_TO_REQUEUE:.0f} s). Heartbeats, sidecars, the distribution of shards and",
        "finalizing are the real code.",
        "",
        "| quantity | measured |",
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
