"""What every run on an output is at, told by the names of small files: any number of runs, any machines, no server.

    _making/runs/<run>.<shards>.json     such as 5f2c9a1e-4711-3b2a91-9f31c0de.12-15+18.json

One listing tells who is at which shards and who is alive. It saves time and nothing depends on it: a shard that two runs make
comes out the same, or the sidecar that comes last names the tar that counts. A run is alive while its file is younger than
`LEASE`, by the store's own clock, and while its process is there, if it is on this machine.
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
from builders.format.manifest import MAKING
from builders.storage.base import Storage
from builders.storage.local import is_process

RUNS = f"{MAKING}/runs"
BEAT, LEASE = 15.0, 60.0
"""Seconds between two writings of a run's file, and after which a run without one counts as dead."""
MAX_PIECES = 12
"""Ranges of shards in a name; of more, the closest are joined, and free shards between them wait for this run."""
SECONDS_TO_SETTLE = 0.5
"""Between showing that this run finalises and looking who shows the same."""
FINALIZE = "finalise"
PIECE = re.compile(r"(\d+)(?:-(\d+))?")
_OPEN: set[str] = set()
"""Runs of this very process that are at work."""


@dataclass(frozen=True)
class RunFile:
    """A run's file, as a listing shows it."""

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
        for first, last in PIECE.findall(self.ranges_text):
            found.update(range(int(first), int(last or first) + 1))
        return found

    @property
    def is_finalizing(self) -> bool:
        return self.ranges_text == FINALIZE

    def is_alive(self, newest: datetime | None) -> bool:
        """Whether the run is at work; `newest` is the youngest time in the same listing."""
        machine, pid, *_ = (*self.run.split("-"), "0")
        if machine == this_machine() and pid.isdecimal():
            if int(pid) == os.getpid() and self.run not in _OPEN:
                return False
            if not is_process(int(pid)):
                return False
        return not (self.time and newest) or newest - self.time < timedelta(seconds=LEASE)


class Heartbeat:
    """One run's place on the board; a context in which the run says that it is alive."""

    def __init__(self, storage: Storage, recipe_hash: str = "", *, runner: str = "local") -> None:
        self.storage = storage
        self.run = f"{this_machine()}-{os.getpid()}-{uuid.uuid4().hex[:6]}-{recipe_hash[:8] or 'any'}"
        """Machine, process, a random part and the recipe."""
        self.summary: dict[str, Any] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "runner": runner,
        }
        """What `status` shows of this run: rate and images are added as it goes on."""
        self._name = self._named("")
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, daemon=True)

    def __enter__(self) -> "Heartbeat":
        _OPEN.add(self.run)
        self.beat()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        _OPEN.discard(self.run)
        self._thread.join()
        with contextlib.suppress(ReadableError, OSError):  # a store that is gone; the file counts for a minute
            self.storage.remove(self._name)
            self.storage.remove_empty_folders(MAKING)

    def beat(self) -> None:
        """Writes this run's file anew."""
        with self._lock:
            self.storage.write(self._name, json.dumps(self.summary).encode())

    def show(self, shards: Collection[int], *, is_finalizing: bool = False) -> None:
        """Tells all others that this run is at some shards, or puts the clone together."""
        name = self._named(FINALIZE if is_finalizing else ranges(shards))
        if name != self._name:
            with self._lock:
                self.storage.write(name, json.dumps(self.summary).encode())
                old, self._name = self._name, name
            self.storage.remove(old)

    def check_recipe(self) -> None:
        """Checks that no run of another recipe is at work here.

        Raises:
            UserError: there is one.
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
        """Whether this run is the one that puts the clone together; if two think so, both end in the same files."""
        others = self.others()
        if FINALIZE not in self._name:
            if any(seen.is_finalizing for seen in others):
                return False
            self.show((), is_finalizing=True)
            if others:  # they may be showing the same at this moment
                time.sleep(SECONDS_TO_SETTLE)
                others = self.others()
        return all(self.run < seen.run for seen in others if seen.is_finalizing)

    def others(self) -> list[RunFile]:
        """The other runs that are alive, by one listing."""
        return [seen for seen in alive_runs(self.storage) if seen.run != self.run]

    def files(self) -> set[str]:
        """This run's own file."""
        return {self._name}

    def _named(self, ranges_text: str) -> str:
        return f"{RUNS}/{self.run}.{ranges_text}.json" if ranges_text else f"{RUNS}/{self.run}.json"

    def _keep_beating(self) -> None:
        while not self._is_over.wait(BEAT):
            with contextlib.suppress(ReadableError, OSError):  # a store that does not answer now may answer next time
                self.beat()


def alive_runs(storage: Storage, now: datetime | None = None) -> list[RunFile]:
    """All runs that are at work on an output, by one listing.

    Args:
        storage: The output.
        now: For who only looks on. A run itself needs none: its own file is the youngest, so that no two clocks are compared.
    """
    listed = [RunFile(name, when) for name, when in storage.times(RUNS).items() if name.endswith(".json")]
    newest = max([seen.time for seen in listed if seen.time] + ([now] if now else []), default=None)
    return [seen for seen in listed if seen.is_alive(newest)]


def shards_of(runs: Iterable[RunFile]) -> set[int]:
    """All shards that some runs are at."""
    return set().union(*(seen.shards for seen in runs))


def read_summary(storage: Storage, seen: RunFile) -> dict[str, Any]:
    """What a run says of itself; nothing where its file has changed its name since."""
    try:
        found = json.loads(storage.read(seen.name))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def ranges(shards: Collection[int]) -> str:
    """Shards as a part of a file's name: "12-15+18"."""
    ranges_text = [[shard, shard] for shard in sorted(shards)]
    while len(ranges_text) > 1:
        gaps = [after[0] - before[1] for before, after in itertools.pairwise(ranges_text)]
        closest = gaps.index(min(gaps))
        if gaps[closest] > 1 and len(ranges_text) <= MAX_PIECES:
            break
        ranges_text[closest : closest + 2] = [[ranges_text[closest][0], ranges_text[closest + 1][1]]]
    return "+".join(f"{first}-{last}" if last > first else str(first) for first, last in ranges_text)


@cache
def this_machine() -> str:
    """An id that is the same in exactly the processes that see each other's process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text() + os.readlink("/proc/self/ns/pid")
    except OSError:
        boot = f"{socket.gethostname()} {uuid.getnode()}"
    return hashlib.blake2b(boot.encode(), digest_size=4).hexdigest()
