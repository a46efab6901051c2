"""What every runner is: a module with `run(job)`, which has some workers make the shards that it is given, in any order.

A runner brings workers; `coordination/scheduler.py` hands shards out to them, and `policy.py` decides what follows from failures.
A runner of another package is an entry point in the group "fakeit.runners".
"""

from collections.abc import Sequence
from typing import Protocol, cast

from builders.coordination.job import Job, Report
from builders.planning.plan import Plan
from builders.plugins import find_plugin


class Runner(Protocol):
    def prepare(self, address: str) -> None:
        """Checks whether it can run here, before anything is written.

        Raises:
            UserError: it cannot.
        """

    def run(self, job: Job) -> Report: ...

    def script(self, plan: Plan, name: str, command: Sequence[str], num_tasks: int, options: str) -> str:
        """For a batch system: the script that starts the tasks. Other runners have none."""


def find_runner(name: str) -> Runner:
    """The runner of that name.

    Raises:
        UserError: there is none, or what it stands on is not installed.
    """
    return cast(Runner, find_plugin("runners", name))
