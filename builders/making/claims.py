"""Who is making what, in small files that every run on an output reads: any number of runs, on any machines, no server.

    _making/runs/<run>.json       a run: where it is, and when it was last known to be alive
    _making/claims/<shard>.json   which run is making a shard

A claim saves time and nothing depends on it: a shard is a pure function of the recipe, so one that two runs make comes out
the same. A claim holds while its run is alive: it says so every `BEAT` seconds, and counts as lost after `LEASE` without (or
at once, where its process is gone from this machine). Clocks of the machines may differ by much less than a lease.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

from builders.format.errors import UserError
from builders.format.manifest import MAKING
from builders.format.storage import Storage

RUNS, CLAIMS = f"{MAKING}/runs", f"{MAKING}/claims"
BEAT, LEASE = 15.0, 60.0
"""Seconds."""
FINALISE = "finalise"
"""What the run claims that puts the clone together."""
_OPEN: set[str] = set()
"""Runs of this very process that are at work."""
SECONDS_KNOWN = 2.0
"""For which what was read of another run is taken to be so still."""


@dataclass(frozen=True, kw_only=True)
class Run:
    id: str
    host: str
    machine: str
    """Which boot of which machine, and which container there: where its process can be looked for."""
    pid: int
    runner: str
    num_workers: int
    started: float
    """Seconds since 1970, as `beat`."""
    beat: float

    def is_alive(self, now: float) -> bool:
        if self.machine == this_machine():
            if self.pid == os.getpid() and self.id not in _OPEN:
                return False
            if not _is_process(self.pid):
                return False
        return now - self.beat < LEASE


class Claims:
    """The claims of one run; a context in which it says that it is alive."""

    def __init__(
        self,
        storage: Storage,
        *,
        runner: str = "local",
        num_workers: int = 1,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.storage, self._clock = storage, clock
        now = clock()
        self.run = Run(
            id=uuid.uuid4().hex[:12],
            host=socket.gethostname(),
            machine=this_machine(),
            pid=os.getpid(),
            runner=runner,
            num_workers=num_workers,
            started=now,
            beat=now,
        )
        self._held: set[str] = set()
        self._known: dict[str, tuple[float, bool]] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, daemon=True)

    def __enter__(self) -> "Claims":
        _OPEN.add(self.run.id)
        self.beat()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        _OPEN.discard(self.run.id)
        with contextlib.suppress(
            UserError, OSError
        ):  # of a store that is gone; what is left counts as lost in a minute
            self.close()

    def beat(self) -> None:
        """Says that this run is alive."""
        said = {**asdict(self.run), "beat": self._clock()}
        self.storage.write(f"{RUNS}/{self.run.id}.json", json.dumps(said).encode())

    def close(self) -> None:
        """Gives up all claims, and takes the run's own file away."""
        if self._thread.is_alive():
            self._thread.join()
        for name in list(self._held):
            self.release(name)
        self.storage.remove(f"{RUNS}/{self.run.id}.json")
        self.storage.remove_empty_folders(MAKING)

    def files(self) -> list[str]:
        """This run's own files."""
        return [f"{RUNS}/{self.run.id}.json", *map(claim_file, self._held)]

    def take(self, name: str) -> bool:
        """Claims a shard by its number, or `FINALISE`; False where another run that is alive has it."""
        self._held.add(name)  # first, for a signal may end this anywhere
        is_ours = self._take(claim_file(name))
        if not is_ours:
            self._held.discard(name)
        return is_ours

    def taken(self) -> set[str]:
        """All that is claimed by any run, alive or not, by one listing."""
        return {PurePosixPath(path).stem for path in self.storage.names(CLAIMS)}

    def lost(self, names: Sequence[str]) -> list[str]:
        """Those of some claims whose runs are not alive, in their order; all are asked about at once."""
        holders = self.storage.each(self._holder, [claim_file(name) for name in names])
        runs = sorted({holder for holder in holders if holder})
        alive = {run for run, is_alive in zip(runs, self.storage.each(self._is_alive, runs), strict=True) if is_alive}
        return [name for name, holder in zip(names, holders, strict=True) if holder not in alive]

    def release(self, name: str) -> None:
        self.storage.remove(claim_file(name))
        self._held.discard(name)

    def _take(self, path: str) -> bool:
        content = json.dumps({"run": self.run.id, "since": self._clock()}).encode()
        if self.storage.create(path, content):
            return True
        holder = self._holder(path)
        if holder == self.run.id:
            return True
        if holder is not None and self._is_alive(holder):
            return False
        self.storage.write(path, content)
        return self._holder(path) == self.run.id

    def _keep_beating(self) -> None:
        while not self._is_over.wait(BEAT):
            with contextlib.suppress(UserError, OSError):  # a store that does not answer now may answer next time
                self.beat()

    def _holder(self, path: str) -> str | None:
        found = read_json(self.storage, path)
        return str(found["run"]) if found and "run" in found else None

    def _is_alive(self, run: str) -> bool:
        now = self._clock()
        read, is_alive = self._known.get(run, (float("-inf"), False))
        if now - read > SECONDS_KNOWN:
            found = read_run(self.storage, run)
            is_alive = found is not None and found.is_alive(now)
            self._known[run] = (now, is_alive)
        return is_alive


def read_run(storage: Storage, run: str) -> Run | None:
    """What a run last said of itself; None where it has ended, or its file is of another version."""
    found = read_json(storage, f"{RUNS}/{run}.json")
    try:
        return Run(**found) if found else None
    except TypeError:
        return None


def read_json(storage: Storage, name: str) -> dict[str, Any] | None:
    """A small file; None where it is not there, or is no JSON object."""
    try:
        found = json.loads(storage.read(name))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def shard_claim(shard: int) -> str:
    """The name by which a shard is claimed."""
    return f"{shard:06d}"


def claim_file(name: str) -> str:
    """The file of a claim."""
    return f"{CLAIMS}/{name}.json"


def this_machine() -> str:
    """The same in all processes that see one another, and in no others, also where names of hosts are alike."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} {uuid.getnode()}"


def _is_process(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
