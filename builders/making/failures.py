"""Shards that could not be made: what is told of each, in `_making/failures`, until it is made after all."""

import errno
import json
import socket
import time
import traceback
from dataclasses import asdict, dataclass
from functools import partial

from builders.format.errors import ShardError, UserError
from builders.format.manifest import MAKING
from builders.format.storage import Storage
from builders.making.claims import read_json
from builders.making.plan import Plan

FAILURES = f"{MAKING}/failures"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Why an attempt at a shard failed. It travels between processes."""

    cause: str
    """One sentence."""
    details: str = ""
    """The traceback of what is no mistake of the user's."""
    ends_run: bool = False
    """Whether any other shard would end the same, as with a full disk or a model that is not there."""
    ends_shard: bool = False
    """Whether this shard would end the same again."""
    is_death: bool = False
    """Whether all that is known is that the worker is gone, of the shard or of something else."""
    error: Exception | None = None
    """What to raise, of one that ends the run."""

    @property
    def is_unexpected(self) -> bool:
        """Whether the worker itself may be broken, as by a CUDA error, after which all that its process tries fails."""
        return bool(self.details)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A shard that was given up."""

    shard: int
    first_key: str
    last_key: str
    num_samples: int
    num_attempts: int
    cause: str
    details: str
    host: str
    time: float

    def __str__(self) -> str:
        tries = f" {self.num_attempts} times" if self.num_attempts > 1 else ""
        which = f"{self.num_samples:,} images, {self.first_key} … {self.last_key}"
        return f"shard {self.shard} ({which}) failed{tries}: {self.cause}"


ENDS_RUN = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


def problem_of(error: Exception) -> Problem:
    """What an exception means for the shard and for the run."""
    if isinstance(error, ShardError):
        return Problem(cause=str(error), ends_shard=True)
    if isinstance(error, UserError) or (isinstance(error, OSError) and error.errno in ENDS_RUN):
        return Problem(cause=str(error), ends_run=True, error=error)
    lines = str(error).strip().splitlines()
    cause = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return Problem(cause=cause, details="".join(traceback.format_exception(error)))


def write_failure(storage: Storage, plan: Plan, shard: int, problem: Problem, num_attempts: int) -> Failure:
    """Notes a shard that is given up, for this run's report and for `status`."""
    samples = plan.shard_samples(shard)
    failure = Failure(
        shard=shard,
        first_key=samples[0].key,
        last_key=samples[-1].key,
        num_samples=len(samples),
        num_attempts=num_attempts,
        cause=problem.cause,
        details=problem.details,
        host=socket.gethostname(),
        time=time.time(),
    )
    storage.write(_name(shard), json.dumps(asdict(failure), ensure_ascii=False, indent=1).encode())
    return failure


def forget_failure(storage: Storage, shard: int) -> None:
    storage.remove(_name(shard))


def read_failures(storage: Storage) -> list[Failure]:
    """All shards that were given up and not made since, by number."""
    found = storage.each(partial(read_json, storage), storage.names(FAILURES))
    return sorted((Failure(**content) for content in found if content), key=lambda failure: failure.shard)


def _name(shard: int) -> str:
    return f"{FAILURES}/{shard:06d}.json"
