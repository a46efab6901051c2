"""Heartbeat files: each run shows by the name of a small file which shards it works on. This needs no server.

    _making/runs/<run>.<shards>.json     such as 5f2c9a1e-4711-3b2a91-9f31c0de.12-15+18.json

One listing shows which runs are alive, on any machines, and which shards they work on. This saves time, but correctness
does not depend on it: if two runs make the same shard, their files are equal, or the sidecar written last names the tar
that counts. A run is alive while its file is younger than `LEASE` by the store's own clock. If the run is on this
machine, its process must exist, too.
"""

import contextlib
import hashlib
import itertools
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from builders.errors import ReadableError, UserError
from builders.format.names import MAKING, RUNS, TARGET
from builders.storage.base import Storage
from builders.storage.local import is_process

BEAT, LEASE = 15.0, 60.0
"""Seconds between two writes of a run's file, and seconds without a write after which the run counts as dead."""
SECONDS_TO_KEEP = 600.0
"""Age of a dead run's file, which `status` shows as lost, at which other runs delete it; each listing counts its names."""
MAX_RANGES = 12
"""Maximum number of ranges in a name. Beyond it, the closest ranges are joined; other runs skip shards in between."""
SECONDS_TO_SETTLE = 0.5
"""Pause between showing that this run finalizes and checking whether another run shows the same."""
FINALIZE = "finalise"
RANGE = re.compile(r"(\d+)(?:-(\d+))?")
_ACTIVE: set[str] = set()
"""Active runs of this process."""


@dataclass(frozen=True)
class RunFile:
    """A run's heartbeat file, as a listing shows it."""

    name: str
    time: datetime | None
    run: str = field(init=False)
    ranges_text: str = field(init=False)

    def __post_init__(self) -> None:
        run, _, ranges_text = self.name.rpartition("/")[2].removesuffix(".json").partition(".")
        object.__setattr__(self, "run", run)
        object.__setattr__(self, "ranges_text", ranges_text)

    @property
    def shards(self) -> set[int]:
        found: set[int] = set()
        for first, last in RANGE.findall(self.ranges_text):
            found.update(range(int(first), int(last or first) + 1))
        return found

    @property
    def is_finalizing(self) -> bool:
        return self.ranges_text == FINALIZE

    def is_alive(self, newest: datetime | None) -> bool:
        """Whether the run is alive; `newest` is the latest time in the same listing."""
        machine, pid, *_ = (*self.run.split("-"), "0")
        if machine == this_machine() and pid.isdecimal():
            if int(pid) == os.getpid() and self.run not in _ACTIVE:
                return False
            if not is_process(int(pid)):
                return False
        return not (self.time and newest) or newest - self.time < timedelta(seconds=LEASE)


class Heartbeat:
    """A context in which a run shows, by its heartbeat file, that it is alive and which shards it works on."""

    def __init__(self, storage: Storage, recipe_hash: str = "", *, runner: str = "local") -> None:
        self.storage = storage
        self.run = f"{this_machine()}-{os.getpid()}-{uuid.uuid4().hex[:6]}-{recipe_hash[:8] or 'any'}"
        """Id of the run: machine, process id, random digits and the beginning of the recipe's hash."""
        self.summary: dict[str, Any] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "runner": runner,
        }
        """Content of the file, for `status`. The scheduler adds the rate and the number of images."""
        self.has_target = True
        """Whether the latest listing shows the target. Without it, another run has finalized the clone."""
        self._name = self._named("")
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, daemon=True)

    def __enter__(self) -> "Heartbeat":
        _ACTIVE.add(self.run)
        self.beat()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        _ACTIVE.discard(self.run)
        self._thread.join()
        # If the store is gone, the file stays and counts as alive for `LEASE` seconds.
        with contextlib.suppress(ReadableError, OSError):
            self.storage.remove(self._name)
            self.storage.remove_empty_folders(MAKING)

    def beat(self) -> None:
        """Writes this run's file again."""
        with self._lock:
            self.storage.write(self._name, json.dumps(self.summary).encode())

    def show(self, shards: Collection[int], *, is_finalizing: bool = False) -> None:
        """Shows all other runs which shards this run works on, or that it finalizes the clone."""
        name = self._named(FINALIZE if is_finalizing else ranges(shards))
        if name != self._name:
            with self._lock:
                self.storage.write(name, json.dumps(self.summary).encode())
                old, self._name = self._name, name
            self.storage.remove(old)

    def check_recipe(self) -> None:
        """Checks that no run of another recipe is active on this output.

        Raises:
            UserError: there is such a run.
        """
        ours = self.run.rpartition("-")[2]
        for seen in self.others():
            if seen.run.rpartition("-")[2] != ours:
                who = read_summary(self.storage, seen)
                raise UserError(
                    f"'{self.storage.root}' is being made from another recipe by a run on {who.get('host', 'a machine')} "
                    f"(process {who.get('pid', '?')}); choose another output, or end that run"
                )

    def may_finalize(self) -> bool:
        """Whether this run is the one to finalize the clone. If two runs both get True, they write the same files."""
        others = self.others()
        if FINALIZE not in self._name:
            if any(seen.is_finalizing for seen in others):
                return False
            self.show((), is_finalizing=True)
            # Another run may start to show the same at this moment.
            if others:
                time.sleep(SECONDS_TO_SETTLE)
                others = self.others()
        return all(self.run < seen.run for seen in others if seen.is_finalizing)

    def others(self) -> list[RunFile]:
        """Returns the other runs that are alive, by one listing. Deletes the files of runs that died long ago."""
        listed, newest, self.has_target = _listed_runs(self.storage)
        for seen in listed:
            if (
                seen.time
                and newest
                and newest - seen.time > timedelta(seconds=SECONDS_TO_KEEP)
                and seen.run != self.run
            ):
                self.storage.remove(seen.name)
        return [seen for seen in listed if seen.is_alive(newest) and seen.run != self.run]

    def files(self) -> set[str]:
        """Returns the name of this run's own file, as a set."""
        return {self._name}

    def _named(self, ranges_text: str) -> str:
        return f"{RUNS}/{self.run}.{ranges_text}.json" if ranges_text else f"{RUNS}/{self.run}.json"

    def _keep_beating(self) -> None:
        while not self._is_over.wait(BEAT):
            # A store that does not answer now may answer next time.
            with contextlib.suppress(ReadableError, OSError):
                self.beat()


def alive_runs(storage: Storage, now: datetime | None = None) -> list[RunFile]:
    """Returns all runs that are active on an output, by one listing.

    Args:
        storage: The output.
        now: Current time, for an observer. A run omits it: its own file is the latest, so no two clocks are compared.
    """
    listed, newest, _ = _listed_runs(storage)
    newest = max([when for when in (newest, now) if when], default=None)
    return [seen for seen in listed if seen.is_alive(newest)]


def _listed_runs(storage: Storage) -> tuple[list[RunFile], datetime | None, bool]:
    """Returns the files of all runs, the latest time among them, and whether the target is there."""
    times = storage.times(RUNS)
    listed = [RunFile(name, when) for name, when in times.items() if name.endswith(".json") and name != TARGET]
    return listed, max([seen.time for seen in listed if seen.time], default=None), TARGET in times


def shards_of(runs: Iterable[RunFile]) -> set[int]:
    """Returns all shards that the runs work on."""
    return set().union(*(seen.shards for seen in runs))


def read_summary(storage: Storage, seen: RunFile) -> dict[str, Any]:
    """Returns the content of a run's file; an empty dictionary if the file was renamed meanwhile or is damaged."""
    try:
        found = json.loads(storage.read(seen.name))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def ranges(shards: Collection[int]) -> str:
    """Formats shards as ranges for a file name: "12-15+18"."""
    found = [[shard, shard] for shard in sorted(shards)]
    while len(found) > 1:
        gaps = [after[0] - before[1] for before, after in itertools.pairwise(found)]
        closest = gaps.index(min(gaps))
        if gaps[closest] > 1 and len(found) <= MAX_RANGES:
            break
        found[closest : closest + 2] = [[found[closest][0], found[closest + 1][1]]]
    return "+".join(f"{first}-{last}" if last > first else str(first) for first, last in found)


@cache
def this_machine() -> str:
    """Returns an id shared by exactly the processes that see each other's process ids: boot id and PID namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text() + os.readlink("/proc/self/ns/pid")
    except OSError:
        boot = f"{socket.gethostname()} {uuid.getnode()}"
    return hashlib.blake2b(boot.encode(), digest_size=4).hexdigest()
