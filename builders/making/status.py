"""How far an output is, told from its files alone: from any machine that can list them, and without a server."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import PurePosixPath

from builders.format.errors import UserError
from builders.format.manifest import MAKING
from builders.format.storage import Storage
from builders.making.claims import CLAIMS, FINALISE, RUNS, Run, claim_file, read_json, read_run
from builders.making.failures import FAILURES, Failure, read_failures
from builders.making.output import Output, open_for_reading
from builders.making.shard import sidecar_name

WINDOW = 1800.0
"""Seconds over which the rate is taken."""
MIN_SHARDS_FOR_RATE = 2
MAX_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """A shard that is in the making."""

    shard: int
    run: Run | None
    """None of one that has ended without a word."""
    seconds: float
    """Since it was claimed."""


@dataclass(frozen=True, kw_only=True)
class Status:
    name: str
    """Of the recipe."""
    num_samples: int
    num_shards: int
    num_samples_done: int
    num_shards_done: int
    is_complete: bool
    """Whether the clone is put together."""
    is_finalising: bool
    runs: list[Run]
    """Those that are alive."""
    running: list[Claimed]
    lost: list[Claimed]
    """Of runs that are not alive; another run will take them up."""
    failures: list[Failure]
    images_per_second: float | None
    """Over the last half hour; None where too little is known."""

    @property
    def seconds_left(self) -> float | None:
        """At that rate."""
        left = self.num_samples - self.num_samples_done
        return left / self.images_per_second if self.images_per_second else None


def read_status(out: str, now: float | None = None) -> Status:
    """What is done, running, lost and failed of the clone at `out`.

    Raises:
        UserError: nothing is being made there.
    """
    now, storage = time.time() if now is None else now, Storage(out)
    output = open_for_reading(storage)
    if output is None:
        raise UserError(f"'{out}' holds no clone and none is being made there; check the path")
    plan = output.plan
    listed = storage.times(MAKING)
    names = [sidecar_name(plan, shard) for shard in range(plan.num_shards)]
    done = [shard for shard, name in enumerate(names) if name in listed or output.is_kept(shard)]
    runs = [PurePosixPath(path).stem for path in _listed_in(listed, RUNS)]
    found = dict(zip(runs, storage.each(partial(read_run, storage), runs), strict=True))
    claims = storage.each(lambda name: _read_claim(storage, name, found, now), _listed_in(listed, CLAIMS))
    running = sorted((claim for claim in claims if claim), key=lambda claim: claim.shard)
    is_complete = output.is_complete
    return Status(
        name=plan.recipe.name,
        num_samples=plan.num_samples,
        num_shards=plan.num_shards,
        num_samples_done=plan.num_in(done),
        num_shards_done=len(done),
        is_complete=is_complete,
        is_finalising=claim_file(FINALISE) in listed and not is_complete,
        runs=[run for run in found.values() if run and run.is_alive(now)],
        running=[claim for claim in running if claim.run and claim.run.is_alive(now)],
        lost=[claim for claim in running if not (claim.run and claim.run.is_alive(now))],
        failures=read_failures(storage) if _listed_in(listed, FAILURES) else [],
        images_per_second=_rate(output, [listed.get(names[shard]) for shard in done], done, now),
    )


def describe(status: Status) -> list[str]:
    """The status in lines."""
    share = status.num_samples_done / status.num_samples
    lines = [
        f"{status.name}: {status.num_samples_done:,} of {status.num_samples:,} images ({share:.1%}), "
        f"{status.num_shards_done:,} of {status.num_shards:,} shards"
    ]
    if status.is_complete:
        return [*lines, "the clone is complete"]
    if status.is_finalising:
        lines.append("the clone is being put together")
    if status.images_per_second and (left := status.seconds_left) is not None:
        lines.append(
            f"{status.images_per_second:,.1f} images/s in the last half hour, {_duration(left)} left at that rate"
        )
    for run in status.runs:
        held = [claim for claim in status.running if claim.run and claim.run.id == run.id]
        longest = f", the longest for {_duration(max(claim.seconds for claim in held))}" if held else ""
        lines.append(
            f"running: {run.runner} on {run.host} (process {run.pid}), {len(held)} shards in the making{longest}"
        )
    if not status.runs:
        lines.append("no run is at work; 'fakeit-build make' goes on")
    if status.lost:
        lines.append(f"lost: {_numbers(status.lost)}, of runs that ended without a word; they will be made again")
    return [*lines, *(f"failed: {failure}" for failure in status.failures)]


def _numbers(claims: Sequence[Claimed]) -> str:
    shown = ", ".join(str(claim.shard) for claim in claims[:MAX_SHOWN])
    return f"shards {shown}{', …' if len(claims) > MAX_SHOWN else ''}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _read_claim(storage: Storage, name: str, runs: Mapping[str, Run | None], now: float) -> Claimed | None:
    found = read_json(storage, name)
    if not found or not PurePosixPath(name).stem.isdecimal():
        return None
    return Claimed(
        shard=int(PurePosixPath(name).stem),
        run=runs.get(str(found.get("run"))),
        seconds=now - float(found.get("since", now)),
    )


def _listed_in(listed: Mapping[str, object], folder: str) -> list[str]:
    """The names in a folder."""
    return [name for name in listed if name.startswith(f"{folder}/")]


def _rate(output: Output, times: Sequence[datetime | None], done: Sequence[int], now: float) -> float | None:
    """Images a second, from the times at which shards were finished: the first of them only begins the count."""
    finished = sorted(
        (when.timestamp(), output.plan.shard_length(shard))
        for when, shard in zip(times, done, strict=True)
        if when is not None and now - when.timestamp() <= WINDOW
    )
    if len(finished) < MIN_SHARDS_FOR_RATE or finished[-1][0] <= finished[0][0]:
        return None
    return sum(length for _, length in finished[1:]) / (finished[-1][0] - finished[0][0])
