"""Makes a clone from a plan: a runner makes the missing shards, and one of the active runs finalizes the clone.

Invariant: `make_clone` may be killed at any point and called again. Any number of calls may run at the same time, on
any machines. The clone is the same.
"""

import contextlib
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

from builders.card.render import clone_card
from builders.card.sections import CardText
from builders.coordination.finalize import MissingShardError, clean_up, finalize
from builders.coordination.heartbeat import Heartbeat
from builders.coordination.job import Job, Report, Task
from builders.coordination.output import State, missing_shards, read_state, write_target
from builders.coordination.patience import retry_unreachable
from builders.coordination.signals import Stop, StoppedError
from builders.errors import UserError
from builders.format.manifest import Manifest
from builders.format.names import CARD, MAKING
from builders.generation.generate_shard import sweep_scratch
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.runners.base import Runner, find_runner
from builders.storage.base import open_storage

Result = TypeVar("Result")

SECONDS_BETWEEN_LOOKS = 1.0
"""Pause between two checks while another run finalizes the clone."""
MAX_REMAKES = 2
"""How often shards that `finalize` finds damaged are made again, before the error is raised."""


class FailedShardsError(UserError):
    """Some shards failed permanently. All others are finished, unless the run gave up (`has_given_up`)."""

    exit_status = 1

    def __init__(self, report: Report) -> None:
        super().__init__("; ".join([*map(str, report.failures), *report.causes]))
        self.failures, self.causes, self.has_given_up = report.failures, report.causes, report.has_given_up


def make_clone(
    plan: Plan,
    out: str,
    *,
    execution: Execution = Execution(),
    shards: range | None = None,
    runner_name: str = "local",
    num_workers: int = 0,
    address: str = "",
    scratch: str = "",
    patience: float = 6 * 3600.0,
    stop: Stop | None = None,
    text: CardText = CardText(),
    on_start: Callable[[int, int], object] = lambda num_done, num_samples: None,
    on_images: Callable[[int], object] = lambda num_images: None,
    on_warning: Callable[[str], object] = warnings.warn,
) -> Manifest | None:
    """Makes the missing shards of a clone, and finalizes the clone once all exist. `materialize` calls this function.

    Args:
        plan: Recipe and length of the clone.
        out: Directory or URL of the clone.
        execution: Settings of the computation that are not part of the recipe, such as the batch size.
        shards: Make only these shards. Finalizing is left to a call without this argument.
        runner_name: local, slurm, ray, or the name of a plug-in.
        num_workers: Number of workers; 0 means one per GPU, or one without a GPU.
        address: Address of the runner's cluster, if it has one.
        scratch: Local folder for tars before their upload to a remote store; "" means one in the temporary directory.
        patience: Seconds for which to retry a store that does not answer.
        stop: Ends the run early once `stop.is_requested` is true.
        text: Texts of the user for the card.
        on_start: Called once with the number of finished images and the number of all images.
        on_images: Called after every batch with the number of new images.
        on_warning: Called with a sentence when a worker is replaced or retired.

    Returns:
        The manifest of the finished clone; None if other calls still have to make shards.

    Raises:
        FailedShardsError: some shards failed permanently.
        StoppedError: a signal ended the run; finished tars are kept.
        UnreachableError: the store did not answer within `patience` seconds; finished tars are kept.
        UserError: the output holds something else or cannot be written to, or no shard can be made.
    """
    runner, storage = find_runner(runner_name), open_storage(out)
    runner.prepare(address)
    state = read_state(storage)
    state.check(plan)
    if state.is_complete(plan):
        return _remove_leftovers(plan, state, text)
    with Heartbeat(storage, plan.recipe.hash, runner=runner_name) as heartbeat:
        job = Job(
            task=Task(plan=plan, out=out, scratch=scratch, patience=patience), execution=execution, heartbeat=heartbeat,
            num_workers=num_workers, address=address, stop=stop or Stop(), on_images=on_images, on_warning=on_warning,
        )  # fmt: skip
        heartbeat.check_recipe()
        return _make(runner, job, shards, text, on_start)


def _make(
    runner: Runner, job: Job, shards: range | None, text: CardText, on_start: Callable[[int, int], object]
) -> Manifest | None:
    """Makes the missing shards and finalizes the clone. Shards that `finalize` finds damaged are made again."""
    plan, storage = job.task.plan, job.heartbeat.storage
    requested = range(plan.num_shards) if shards is None else shards
    is_first, num_remakes = True, 0
    while True:
        state = _retry_unreachable(job, partial(_complete_interrupted_finalize, job, text))
        state.check(plan)
        if state.is_complete(plan):
            return _remove_leftovers(plan, state, text)
        write_target(plan, state)
        missing = missing_shards(plan, state, requested)
        if is_first:
            on_start(plan.count_samples(requested) - plan.count_samples(missing), plan.count_samples(requested))
        is_first = False
        if missing:
            report = runner.run(replace(job, shards=missing, is_begun=state.is_begun))
            if report.is_finalized_elsewhere and report.error is None:
                continue
            _raise_for(report)
            if not report.is_all_made:
                return None
        if shards is not None and not read_state(storage).is_complete(plan):
            return None
        try:
            return _retry_unreachable(job, partial(_finalize, plan, job, text))
        except MissingShardError:
            num_remakes += 1
            if num_remakes > MAX_REMAKES:
                raise


def _retry_unreachable(job: Job, call: Callable[[], Result]) -> Result:
    return retry_unreachable(call, job.task.patience, is_over=lambda: job.stop.is_requested)


def _complete_interrupted_finalize(job: Job, text: CardText) -> State:
    """Completes an interrupted `finalize` of another length, if there is one; returns the output's state after that."""
    plan, storage = job.task.plan, job.heartbeat.storage
    state = read_state(storage)
    if state.finalizing not in (None, plan.num_rounds) and state.recipe == plan.recipe:
        # If that clone lacks a shard, it cannot be finalized, and only the new plan counts.
        with contextlib.suppress(MissingShardError):
            _finalize(Plan(plan.recipe, state.finalizing or 0), job, text)
        state = read_state(storage)
    return state


def _raise_for(report: Report) -> None:
    if report.error is not None:
        raise report.error
    # Checked before failures: work is left, and the exit status makes a batch system start the run again.
    if report.is_stopped:
        raise StoppedError
    if report.failures or report.has_given_up:
        raise FailedShardsError(report)


def _finalize(plan: Plan, job: Job, text: CardText) -> Manifest:
    """Finalizes the clone, or waits until another run has done so."""
    heartbeat = job.heartbeat
    while True:
        state = read_state(heartbeat.storage)
        if state.is_complete(plan):
            return _remove_leftovers(plan, state, text)
        if heartbeat.may_finalize():
            try:
                manifest = finalize(plan, state, text)
                clean_up(plan, state, heartbeat.files())
                sweep_scratch(state.storage, job.task.scratch, is_finished=state.is_last(plan))
                return manifest
            except (FileNotFoundError, UserError):
                # Another run may have finalized at the same time and deleted `_making`.
                if not read_state(heartbeat.storage).is_complete(plan):
                    raise
        elif job.stop.is_requested:
            raise StoppedError
        else:
            time.sleep(SECONDS_BETWEEN_LOOKS)


def _remove_leftovers(plan: Plan, state: State, text: CardText) -> Manifest:
    """Deletes what a late run left in `_making` of a finished clone. Renders its card again if `text` is given."""
    assert state.old
    if text != CardText():
        state.storage.write(CARD, clone_card(state.storage, state.old, text))
    if state.is_last(plan):
        state.storage.remove_folder(MAKING)
    return state.old
