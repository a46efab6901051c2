"""The runner for Slurm: an array job. Each task makes the shards of its index, and then helps the other tasks.

    fakeit-build make RECIPE OUT --runner slurm --print > job.sh && sbatch job.sh

A node needs nothing of Slurm but its environment variables. Ahead of the time limit (SIGUSR1), a task finishes its
shard in progress. At preemption (SIGTERM), it drops that shard. In both cases it ends with status 75 and is requeued.
"""

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace

from builders.coordination.job import Job, Report
from builders.coordination.signals import IS_STOPPED
from builders.engines.base import engine
from builders.errors import UserError
from builders.planning.plan import Plan
from builders.runners.base import find_runner

SECONDS_AHEAD = 600
"""Minimum time before the time limit at which Slurm sends SIGUSR1, enough to finish the shard in progress."""
MAX_SECONDS_AHEAD = 65_535
"""Slurm's maximum. Half of the time limit is a further maximum: a task that gets SIGUSR1 at its start makes nothing."""
SECONDS_AN_IMAGE = 2.0
"""Assumed time per image of a diffusion model, for the time of SIGUSR1: an A100, 50 steps of SD 1.x, with a margin."""
CPUS_PER_TASK = 4
"""The driver, the worker's kernel launches and its JPEG encoder each keep one core busy."""
SCRIPT = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --array=0-{last}
#SBATCH --ntasks=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={name}-%A_%a.log
{more}
# {num_shards:,} shards of {shard_length:,} images over {num_tasks:,} tasks; `fakeit-build status` shows their progress.
trap '' TERM  # at the time limit or preemption the task ends itself, and this script continues
srun {command}
status=$?
if [ "$status" -eq {is_stopped} ]; then  # stopped with work left
    scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit "$status"
"""


def prepare(address: str) -> None:
    """Checks that this process is a task of an array.

    Raises:
        UserError: this process is not a task of an array.
    """
    array_index()


def run(job: Job) -> Report:
    """Makes the shards of this task, then shards of other tasks that are not in progress. Does not wait for those.

    Raises:
        UserError: this process is not a task of an array.
    """
    index, num_tasks = array_index()
    shards = in_task_order(job.shards, index, num_tasks)
    num_own = sum(shard % num_tasks == index for shard in shards)
    return find_runner("local").run(replace(job, shards=shards, num_own=num_own, waits_for_others=False))


def in_task_order(shards: Sequence[int], index: int, num_tasks: int) -> list[int]:
    """Returns a task's own shards forwards, then the others' backwards; helping tasks begin with different shards."""
    ours = [shard for shard in shards if shard % num_tasks == index]
    others = [shard for shard in shards if shard % num_tasks != index]
    return ours + sorted(others, key=lambda shard: (-(shard // num_tasks), (shard - index) % num_tasks))


def array_index() -> tuple[int, int]:
    """Returns the index of this task, from 0, and the number of tasks.

    Raises:
        UserError: Slurm's environment variables are not set.
    """
    names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX")
    try:
        task, first, last = (int(os.environ[name]) for name in names)
    except (KeyError, ValueError):
        raise UserError(
            "this is not a task of a Slurm array (SLURM_ARRAY_TASK_ID is not set); add --print for a script to give to "
            "sbatch"
        ) from None
    return task - first, last - first + 1


def time_limit(options: Sequence[str]) -> int | None:
    """Returns the seconds of sbatch's option --time; None if it is missing or has another form than those below.

    With days the form is DAYS-HOURS[:MINUTES[:SECONDS]], without days MINUTES[:SECONDS] or HOURS:MINUTES:SECONDS.
    """
    given = re.search(r"(?:^| )(?:--time[= ]|-t[= ]?)(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?(?= |$)", " ".join(options))
    if not given:
        return None
    days, *numbers = given.groups()
    values = [int(number) for number in numbers if number is not None]
    units = (3600, 60, 1) if days is not None or len(values) == 3 else (60, 1)
    return 86400 * int(days or 0) + sum(value * unit for value, unit in zip(values, units, strict=False))


def script(plan: Plan, name: str, command: Sequence[str], num_tasks: int, options: str) -> str:
    """Returns an sbatch script for an array of `num_tasks` tasks; `options` are further options of sbatch.

    Raises:
        UserError: the options cannot be read.
    """
    try:
        given = shlex.split(options)
    except ValueError as error:
        raise UserError(f"--sbatch '{options}' cannot be read ({error}); write it as sbatch accepts it") from None
    if "\n" in options:
        raise UserError("--sbatch has several lines; write its options in one")
    num_tasks = min(num_tasks, plan.num_shards)
    needs_gpu = engine(plan.recipe.engine).USES_GPU
    seconds_ahead = max(SECONDS_AHEAD, needs_gpu * round(SECONDS_AN_IMAGE * plan.shard_length(0)))
    seconds_ahead = min(seconds_ahead, MAX_SECONDS_AHEAD, (time_limit(given) or seconds_ahead * 2) // 2)
    more = [] if any(option.startswith("--signal") for option in given) else [f"--signal=USR1@{seconds_ahead}"]
    if needs_gpu and not any(option.startswith(("--g", "-G")) for option in given):
        more.append("--gpus=1")
    if not any(option.startswith(("--cpus", "-c")) for option in given):
        more.append(f"--cpus-per-task={CPUS_PER_TASK}")
    return SCRIPT.format(
        name=re.sub(r"[^\w.-]+", "-", name),
        last=num_tasks - 1,
        more="".join(f"#SBATCH {line}\n" for line in [*more, options] if line),
        num_shards=plan.num_shards,
        shard_length=plan.shard_length(0),
        num_tasks=num_tasks,
        command=shlex.join(command),
        is_stopped=IS_STOPPED,
    )
