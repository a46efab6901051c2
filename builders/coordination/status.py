"""Reads the progress of an output from its files alone: from any machine that can list them, and without a server."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from builders.command_line.duration import duration
from builders.coordination.failures import Failure, read_failures
from builders.coordination.heartbeat import RunFile, alive_runs, read_summary
from builders.coordination.output import made_shards, read_state
from builders.errors import UserError
from builders.format.manifest import Verdicts
from builders.format.names import MAKING, RUNS, TARGET
from builders.storage.base import open_storage

MAX_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """An active run."""

    runner: str
    host: str
    pid: int
    shards: list[int]
    num_images: int
    """Images made so far of the shards in progress."""
    images_per_second: float
    """Rate over the last two minutes."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """Progress of an output."""

    name: str
    """Name of the recipe."""
    num_samples: int
    num_shards: int
    num_samples_done: int
    """Images of finished shards, and images made so far of shards in progress."""
    num_shards_done: int
    is_complete: bool
    """Whether the clone is finalized."""
    is_finalizing: bool
    runs: list[RunStatus]
    """Active runs."""
    lost: list[int]
    """Shards of runs that ended unexpectedly. They will be made again."""
    failures: list[Failure]
    verdicts: Verdicts
    """Verdicts on the images of the finished clone."""

    @property
    def images_per_second(self) -> float:
        return sum(run.images_per_second for run in self.runs)

    @property
    def seconds_left(self) -> float | None:
        """Estimated time left at the current rate; None without a rate."""
        left = self.num_samples - self.num_samples_done
        return left / self.images_per_second if self.images_per_second else None


def read_status(out: str) -> Status:
    """Returns what is finished, running, lost and failed of the clone at `out`.

    Raises:
        UserError: the output holds no clone, and none is being made there.
    """
    storage = open_storage(out)
    state = read_state(storage)
    plan = state.plan()
    if plan is None:
        raise UserError(f"'{out}' holds no clone and none is being made there; check the path")
    is_complete = state.is_complete(plan)
    num_kept = len(state.kept(plan))
    done = {*range(num_kept), *(() if is_complete else made_shards(plan, storage, range(num_kept, plan.num_shards)))}
    seen = [] if is_complete else alive_runs(storage, datetime.now(UTC))
    runs = [_run(one, found) for one in seen if (found := read_summary(storage, one))]
    alive = {one.name for one in seen}
    dead = [] if is_complete else [RunFile(name, None) for name in storage.names(RUNS) if name not in alive | {TARGET}]
    return Status(
        name=plan.recipe.name,
        num_samples=plan.num_samples,
        num_shards=plan.num_shards,
        num_samples_done=min(plan.num_samples, plan.count_samples(done) + sum(run.num_images for run in runs)),
        num_shards_done=len(done),
        is_complete=is_complete,
        is_finalizing=any(one.is_finalizing for one in seen),
        runs=runs,
        lost=sorted(set().union(*(one.shards for one in dead)) - done),
        failures=[] if is_complete and not storage.names(MAKING) else read_failures(storage),
        verdicts=state.old.verdict_totals() if state.old else Verdicts(),
    )


def describe(status: Status) -> list[str]:
    """Formats the status as lines of text."""
    share = status.num_samples_done / status.num_samples
    lines = [
        f"{status.name}: {status.num_samples_done:,} of {status.num_samples:,} images ({share:.1%}), "
        f"{status.num_shards_done:,} of {status.num_shards:,} shards"
    ]
    if broken := sum(status.verdicts.broken.values()):
        lines.append(f"broken: {broken:,} images (not finite, or of one flat color), which training leaves out")
    if flagged := sum(status.verdicts.flagged.values()):
        lines.append(f"flagged by the safety checker and kept: {flagged:,} images")
    if low := sum(status.verdicts.low.values()):
        lines.append(f"below the score of a check after the last attempt, and kept: {low:,} images")
    if remade := sum(status.verdicts.remade.values()):
        lines.append(
            f"generated again with another seed: {remade:,} attempts that were broken, flagged or below a check"
        )
    if status.is_complete:
        return [*lines, "the clone is complete"]
    if status.is_finalizing:
        lines.append("the clone is being finalized")
    if (left := status.seconds_left) is not None:
        lines.append(f"{status.images_per_second:,.1f} images/s, {duration(left)} left at that rate")
    for run in status.runs:
        lines.append(
            f"running: {run.runner} on {run.host} (process {run.pid}), {len(run.shards)} shards in progress, "
            f"{run.num_images:,} of their images finished"
        )
    if not status.runs:
        lines.append("no run is active; 'fakeit-build make' continues")
    if status.lost:
        lines.append(f"lost: {_numbers(status.lost)}, whose runs ended unexpectedly; they will be made again")
    return [*lines, *(f"failed: {failure}" for failure in status.failures)]


def _run(seen: RunFile, summary: dict[str, Any]) -> RunStatus:
    return RunStatus(
        runner=str(summary.get("runner", "")),
        host=str(summary.get("host", "")),
        pid=int(summary.get("pid", 0)),
        shards=sorted(seen.shards),
        num_images=int(summary.get("num_images", 0)),
        images_per_second=float(summary.get("images_per_second", 0.0)),
    )


def _numbers(shards: Sequence[int]) -> str:
    return f"shards {', '.join(map(str, shards[:MAX_SHOWN]))}{', …' if len(shards) > MAX_SHOWN else ''}"
