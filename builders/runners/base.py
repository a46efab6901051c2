"""Interface of runners: a runner is a module whose `run(job)` has workers make the job's shards, in any order.

A runner provides the workers. `coordination/scheduler.py` hands out shards to them. `coordination/policy.py` decides
what follows from failures. Another package adds a runner by an entry point in the group "fakeit.runners".
"""

from collections.abc import Sequence
from typing import Protocol, cast

from builders.coordination.job import Job, Report
from builders.planning.plan import Plan
from builders.plugins import find_plugin


class Runner(Protocol):
    """A module that provides workers on one kind of machine or cluster."""

    def prepare(self, address: str) -> None:
        """Checks whether the runner can run here, before anything is written.

        Raises:
            UserError: the runner cannot run here.
        """

    def run(self, job: Job) -> Report:
        """Makes the job's shards."""

    def script(self, plan: Plan, name: str, command: Sequence[str], num_tasks: int, options: str) -> str:
        """Returns the script that starts the tasks in a batch system. Other runners lack this function."""


def find_runner(name: str) -> Runner:
    """Returns the runner of that name.

    Raises:
        UserError: there is no such runner, or a package that it needs is not installed.
    """
    return cast(Runner, find_plugin("runners", name))
