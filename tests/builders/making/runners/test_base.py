"""What follows from how attempts at shards end, and from what other runs are at."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from builders.format.storage import Storage
from builders.making import claims as claims_module
from builders.making.claims import SECONDS_KNOWN, Claims, shard_claim
from builders.making.failures import Problem
from builders.making.output import open_output
from builders.making.plan import Plan
from builders.making.runners.base import (
    MAX_ATTEMPTS,
    MAX_TAKEN_BY_OTHERS,
    Drive,
    Job,
    Outcome,
    Report,
    attempt,
    drive,
)


class Dying:
    """An executor with room for two shards; of each attempt a function tells whether its worker dies."""

    def __init__(self, job: Job, dies: Callable[[int, int], bool]) -> None:
        self.job, self.dies = job, dies
        self.waiting: list[int] = []
        self.tried: list[int] = []

    def room(self) -> int:
        return 2 - len(self.waiting)

    def submit(self, shard: int) -> None:
        self.waiting.append(shard)

    def wait(self, seconds: float, on_progress: Callable[[], object]) -> list[Outcome]:
        shard = self.waiting.pop(0)
        self.tried.append(shard)
        if self.dies(shard, self.tried.count(shard)):
            return [Outcome(shard=shard, problem=Problem(cause="the worker died", is_death=True))]
        return [Outcome(shard=shard, problem=attempt(self.job.plan, self.job.out, shard, lambda num: None))]

    def num_images(self) -> int:
        return 0


def drive_dying(plan: Plan, out: Path, dies: Callable[[int, int], bool]) -> tuple[Dying, Report]:
    open_output(plan, Storage(out))
    with Claims(Storage(out), runner="local") as claims:
        job = Job(plan=plan, out=str(out), shards=list(range(plan.num_shards)), claims=claims)
        executor = Dying(job, dies)
        return executor, drive(job, executor)


def test_drive__deaths_of_workers_end_a_shard_only_where_nothing_else_is_made_between(
    real_plan: Plan, tmp_path: Path
) -> None:
    assert real_plan.num_shards == 4
    executor, report = drive_dying(real_plan, tmp_path / "some", lambda shard, attempt: shard == 0 and attempt <= 4)
    assert executor.tried == [0, 1, 0, 2, 3, 0, 0, 0] and report.failures == []
    executor, report = drive_dying(real_plan, tmp_path / "one", lambda shard, attempt: shard == 1)
    [failure] = report.failures
    assert (failure.shard, failure.num_attempts) == (1, MAX_ATTEMPTS) and not report.has_given_up
    assert executor.tried == [0, 1, 2, 3, 1, 1, 1]
    many = Plan(real_plan.recipe, 40)
    executor, report = drive_dying(many, tmp_path / "all", lambda shard, attempt: True)
    assert report.has_given_up and len(report.failures) == 4 and len(executor.tried) == 12  # one was at work meanwhile


class Counted(Claims):
    """Claims that count what is asked of them, with a clock of their own."""

    num_asked = 0
    now = 1000.0

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage, clock=lambda: self.now)

    def __enter__(self) -> "Counted":
        super().__enter__()
        return self

    def take(self, name: str) -> bool:
        self.num_asked += 1
        return super().take(name)


@contextmanager
def other_run(out: Path, shards: range) -> Iterator[Claims]:
    """A run that is alive and at some shards; its clock is that of `Counted`."""
    claims = Claims(Storage(out), clock=lambda: Counted.now)
    claims_module._OPEN.add(claims.run.id)
    claims.beat()
    assert all(claims.take(shard_claim(shard)) for shard in shards)
    try:
        yield claims
    finally:
        claims_module._OPEN.discard(claims.run.id)


def helper(plan: Plan, out: Path, claims: Claims, dies: Callable[[int, int], bool]) -> tuple[Job, Dying]:
    shards = list(range(plan.num_shards))
    job = Job(plan=plan, out=str(out), shards=shards, claims=claims, waits_for_others=False)
    return job, Dying(job, dies)


def test_drive__finds_what_nobody_is_at_without_asking_of_each_claim(real_plan: Plan, tmp_path: Path) -> None:
    plan = Plan(real_plan.recipe, 40)
    assert plan.num_shards == 20
    open_output(plan, Storage(tmp_path))
    with other_run(tmp_path, range(15)), Counted(Storage(tmp_path)) as claims:
        job, executor = helper(plan, tmp_path, claims, lambda shard, attempt: False)
        report = drive(job, executor)
    assert sorted(executor.tried) == [15, 16, 17, 18, 19] and not report.failures
    assert claims.num_asked == MAX_TAKEN_BY_OTHERS + 5


def test_drive__a_run_that_helps_takes_up_what_a_dead_one_held(real_plan: Plan, tmp_path: Path) -> None:
    plan = Plan(real_plan.recipe, 40)
    open_output(plan, Storage(tmp_path))
    with (
        other_run(tmp_path, range(3)),
        other_run(tmp_path, range(3, 15)) as dying,
        Counted(Storage(tmp_path)) as claims,
    ):

        def lose(shard: int, attempt: int) -> bool:
            claims_module._OPEN.discard(dying.run.id)
            claims.now = Counted.now + 2 * SECONDS_KNOWN
            return False

        report = drive(*helper(plan, tmp_path, claims, lose))
        made = open_output(plan, Storage(tmp_path)).made_shards(range(20))
    assert made == set(range(3, 20)) and not report.failures


def test_drive__counts_in_what_others_have_made(real_plan: Plan, tmp_path: Path) -> None:
    plan = Plan(real_plan.recipe, 40)
    open_output(plan, Storage(tmp_path))
    with Counted(Storage(tmp_path)) as claims:
        job, executor = helper(plan, tmp_path, claims, lambda shard, attempt: False)
        for shard in range(14):
            assert attempt(plan, str(tmp_path), shard, lambda num: None) is None
        this = Drive(job, executor)
        report = this.to_end()
    assert sorted(executor.tried) == list(range(14, 20)) and this.num_made == 20 and not report.failures
    assert claims.num_asked == MAX_TAKEN_BY_OTHERS + 6
