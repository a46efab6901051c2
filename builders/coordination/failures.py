"""Records of permanently failed shards, in `_making/failures`. A record is deleted once its shard is made after all."""

import errno
import json
import socket
import time
import traceback
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from builders.coordination.policy import Problem
from builders.errors import (
    OutOfMemoryError,
    ReadableError,
    ShardError,
    UnreachableError,
    first_line,
    missing_extra,
)
from builders.format.manifest import known_fields
from builders.format.names import MAKING
from builders.planning.plan import Plan
from builders.storage.base import Storage

FAILURES = f"{MAKING}/failures"
FULL_OR_FORBIDDEN = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Record of a shard that failed permanently."""

    shard: int
    first_key: str
    last_key: str
    num_samples: int
    num_attempts: int
    cause: str
    details: str
    host: str
    time: float
    """Seconds since 1970. Information for the reader only."""

    def __str__(self) -> str:
        tries = f" {self.num_attempts} times" if self.num_attempts > 1 else ""
        which = f"{self.num_samples:,} images, {self.first_key} … {self.last_key}"
        return f"shard {self.shard} ({which}) failed{tries}: {self.cause}"


def classify_error(error: Exception) -> Problem:
    """Returns the problem, with its scope, that an exception of a worker stands for."""
    if isinstance(error, ShardError):
        return Problem(scope="shard", cause=str(error))
    if isinstance(error, OutOfMemoryError):
        return Problem(scope="memory", cause=str(error), error=error)
    if isinstance(error, UnreachableError):
        return Problem(scope="store", cause=str(error), error=error)
    if isinstance(error, ReadableError):
        return Problem(scope="config", cause=str(error), error=error)
    if isinstance(error, ModuleNotFoundError):
        missing = missing_extra(error.name or str(error), "build")
        return Problem(scope="config", cause=str(missing), error=missing)
    if isinstance(error, OSError) and error.errno in FULL_OR_FORBIDDEN:
        where = f" at '{error.filename}'" if error.filename else ""
        return Problem(scope="worker", cause=f"{error.strerror}{where}", is_final=True)
    kind, line = type(error).__name__, first_line(error)
    return Problem(
        scope="worker",
        cause=kind if line == kind else f"{kind}: {line}",
        details="".join(traceback.format_exception(error)),
    )


def write_failure(storage: Storage, plan: Plan, shard: int, problem: Problem, num_attempts: int) -> Failure:
    """Records a permanently failed shard, for this run's report and for `status`."""
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
    """Deletes the record of a shard that was made after all."""
    storage.remove(_name(shard))


def read_failures(storage: Storage) -> list[Failure]:
    """Returns the records of all failed shards that were not made since, sorted by shard number."""
    found = storage.each(partial(_read, storage), storage.names(FAILURES))
    return sorted((known_fields(Failure, content) for content in found if content), key=lambda failure: failure.shard)


def _read(storage: Storage, name: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(storage.read(name))
        return found
    except (OSError, ValueError):
        return None


def _name(shard: int) -> str:
    return f"{FAILURES}/{shard:06d}.json"
