"""What follows from how attempts at shards end, and from what other runs are at."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from builders.format import manifest
from builders.format.storage import Storage
from builders.making import claims as claims_module
from builders.making.claims import SECONDS_KNOWN, Claims, shard_claim
from builders.making.failures import Problem, write_failure
from builders.making.output import open_output
from builders.making.plan import Plan
from builders.making.runners import base
from builders.making.runners.base import (
    MAX_ATTEMPTS,
    MAX_FAILED_IN_A_ROW,
    MAX_TAKEN_BY_OTHERS,
    Drive,
    Job,
    Outcome,
    Report,
    attempt,
    drive,
)

DEATH = Problem(cause="the worker died", is_death=True)
UNEXPECTED = Problem(cause="RuntimeError: CUDA error", details="Traceback …")
PICTURE = Problem(cause="a picture cannot be read", ends_shard=True)
Ends = Callable[[str, int, int], Problem | None]
"""Of a worker, a shard and which attempt at it this is: how it ends; None is making the shard for real."""


class Scripted:
    """An executor whose workers, "a" and "b", end as a function says."""

    def __init__(self, job: Job, ends: Ends, workers: str = "ab") -> None:
        self.job, self.ends = job, ends
        self.free = list(workers)
        self.benched: list[str] = []
        self.at_work: list[tuple[str, int]] = []
        self.tried: list[int] = []

    def room(self) -> int:
        return len(self.free)

    def submit(self, shard: int) -> None:
        self.at_work.append((self.free.pop(0), shard))

    def wait(self, seconds: float, on_progress: Callable[[], object]) -> list[Outcome]:
        if not self.at_work:
            return []
        worker, shard = self.at_work.pop(0)
        self.free.append(worker)
        self.tried.append(shard)
        problem = self.ends(worker, shard, self.tried.count(shard))
        if problem is None:
            problem = attempt(self.job.plan, self.job.out, shard, lambda num: None)
        return [Outcome(shard=shard, worker=worker, problem=problem)]

    def num_images(self) -> int:
        return 0

    def bench(self, worker: str) -> bool:
        self.free.remove(worker)
        self.benched.append(worker)
        return bool(self.free or self.at_work)


class Counted(Claims):
    """Claims that count what is asked of them, with a clock of their own."""

    now = 1000.0

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage, clock=lambda: self.now)
        self.num_asked = self.num_looks = 0

    def __enter__(self) -> "Counted":
        super().__enter__()
        return self

    def take(self, name: str) -> bool:
        self.num_asked += 1
        return super().take(name)

    def taken(self) -> set[str]:
        self.num_looks += 1
        return super().taken()


@contextmanager
def other_run(out: Path, shards: range, clock: Callable[[], float] = lambda: Counted.now) -> Iterator[Claims]:
    """A run that is alive and at some shards; its clock is that of `Counted`."""
    claims = Claims(Storage(out), clock=clock)
    claims_module._OPEN.add(claims.run.id)
    claims.beat()
    assert all(claims.take(shard_claim(shard)) for shard in shards)
    try:
        yield claims
    finally:
        claims_module._OPEN.discard(claims.run.id)


def job_of(plan: Plan, out: Path, claims: Claims) -> Job:
    """A run that helps and does not wait."""
    return Job(plan=plan, out=str(out), shards=list(range(plan.num_shards)), claims=claims, waits_for_others=False)


def driven(plan: Plan, out: Path, ends: Ends, workers: str = "ab") -> tuple[Scripted, Report]:
    """A run by itself."""
    open_output(plan, Storage(out))
    with Claims(Storage(out)) as claims:
        job = job_of(plan, out, claims)
        executor = Scripted(job, ends, workers)
        return executor, drive(job, executor)


def made_at(plan: Plan, out: Path) -> set[int]:
    return open_output(plan, Storage(out)).made_shards(range(plan.num_shards))


@pytest.fixture
def twenty(real_plan: Plan) -> Plan:
    plan = Plan(real_plan.recipe, 40)
    assert plan.num_shards == 20
    return plan


def test_drive__deaths_of_workers_end_a_shard_only_where_nothing_else_is_made_between(
    real_plan: Plan, tmp_path: Path
) -> None:
    assert real_plan.num_shards == 4
    executor, report = driven(
        real_plan, tmp_path / "some", lambda _, shard, n: DEATH if shard == 0 and n <= 4 else None
    )
    assert executor.tried == [0, 1, 0, 2, 3, 0, 0, 0] and report.failures == []
    executor, report = driven(real_plan, tmp_path / "one", lambda _, shard, n: DEATH if shard == 1 else None)
    [failure] = report.failures
    assert (failure.shard, failure.num_attempts) == (1, MAX_ATTEMPTS) and not report.has_given_up
    assert executor.tried == [0, 1, 2, 3, 1, 1, 1]


def test_drive__where_all_workers_die_the_run_is_given_up(
    twenty: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor, report = driven(twenty, tmp_path / "first", lambda *_: DEATH)
    assert report.has_given_up and len(executor.tried) == 12
    monkeypatch.setattr(base, "MAX_DEATHS", 15)
    executor, report = driven(twenty, tmp_path / "later", lambda _, shard, n: DEATH if shard > 1 else None)
    assert report.has_given_up and len(executor.tried) == 2 + 15 + 1  # that was at work
    out = tmp_path / "after others"
    driven(twenty, out, lambda _, shard, n: None if shard == 7 else PICTURE)
    executor, report = driven(twenty, out, lambda *_: DEATH)
    assert report.has_given_up and len(executor.tried) == 12


def test_drive__a_worker_whose_attempts_all_fail_gets_nothing_more(twenty: Plan, tmp_path: Path) -> None:
    executor, report = driven(twenty, tmp_path, lambda worker, *_: UNEXPECTED if worker == "b" else None)
    assert executor.benched == ["b"] and report == Report() and made_at(twenty, tmp_path) == set(range(20))
    assert len(executor.tried) == 20 + MAX_FAILED_IN_A_ROW


def test_drive__a_worker_that_fails_now_and_then_stays(twenty: Plan, tmp_path: Path) -> None:
    executor, report = driven(twenty, tmp_path, lambda _, shard, n: UNEXPECTED if shard % 3 == 0 and n == 1 else None)
    assert executor.benched == [] and report == Report() and len(executor.tried) == 27


def test_drive__where_all_fails_from_some_shard_on_what_was_tried_is_named(twenty: Plan, tmp_path: Path) -> None:
    executor, report = driven(twenty, tmp_path, lambda _, shard, n: UNEXPECTED if shard > 4 else None, workers="a")
    assert report.has_given_up and made_at(twenty, tmp_path) == set(range(5))
    assert executor.tried == [*range(8)] and [failure.shard for failure in report.failures] == [5, 6, 7]


def test_drive__pictures_side_by_side_that_cannot_be_read_end_their_shards_alone(twenty: Plan, tmp_path: Path) -> None:
    _, report = driven(twenty, tmp_path, lambda _, shard, n: PICTURE if shard in range(5, 11) else None)
    assert [failure.shard for failure in report.failures] == [*range(5, 11)] and not report.has_given_up
    assert made_at(twenty, tmp_path) == set(range(20)) - set(range(5, 11))


def test_drive__stopped_after_it_has_given_up_it_says_why(real_plan: Plan, tmp_path: Path) -> None:
    open_output(real_plan, Storage(tmp_path))
    with Claims(Storage(tmp_path)) as claims:
        job = job_of(real_plan, tmp_path, claims)

        def ends(_: str, shard: int, n: int) -> Problem:
            job.stop.is_asked = shard == MAX_FAILED_IN_A_ROW - 1
            return UNEXPECTED

        report = drive(job, Scripted(job, ends, "a"))
    assert report.has_given_up and not report.is_stopped


@pytest.mark.parametrize("per_folder", [1000, 4])
def test_drive__finds_what_nobody_is_at_without_asking_of_each_claim(
    twenty: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_folder: int
) -> None:
    monkeypatch.setattr(manifest, "SHARDS_PER_FOLDER", per_folder)
    monkeypatch.setattr(base, "SHARDS_PER_FOLDER", per_folder)
    open_output(twenty, Storage(tmp_path))
    with other_run(tmp_path, range(17)), Counted(Storage(tmp_path)) as claims:
        job = job_of(twenty, tmp_path, claims)
        executor = Scripted(job, lambda *_: None)
        assert drive(job, executor) == Report()
    assert executor.tried == [17, 18, 19]
    assert claims.num_asked == MAX_TAKEN_BY_OTHERS + 3 and claims.num_looks == 2


def test_drive__looks_again_only_after_a_while(real_plan: Plan, tmp_path: Path) -> None:
    open_output(real_plan, Storage(tmp_path))
    times = iter((1.0, 1.0, 1.0, 2.0, 100.0, 100.0))  # looking reads the clock twice
    with other_run(tmp_path, range(4)), Counted(Storage(tmp_path)) as claims:
        job = replace(job_of(real_plan, tmp_path, claims), waits_for_others=True)
        this = Drive(job, Scripted(job, lambda *_: None), lambda: next(times))
        for num_looks in (1, 1, 1, 2):
            this.hand_out()
            assert not this.is_over() and claims.num_looks == num_looks


def test_drive__a_run_that_helps_takes_up_what_a_dead_one_held(twenty: Plan, tmp_path: Path) -> None:
    open_output(twenty, Storage(tmp_path))
    with (
        other_run(tmp_path, range(3)),
        other_run(tmp_path, range(3, 15)) as dying,
        Counted(Storage(tmp_path)) as claims,
    ):

        def lose(*_: object) -> None:
            claims_module._OPEN.discard(dying.run.id)
            claims.now = Counted.now + 2 * SECONDS_KNOWN

        job = job_of(twenty, tmp_path, claims)
        assert drive(job, Scripted(job, lose)) == Report()
        assert made_at(twenty, tmp_path) == set(range(3, 20))


def test_drive__that_loses_the_race_for_what_is_free_looks_once_more(twenty: Plan, tmp_path: Path) -> None:
    """Others take the last free shards between the look and the claim, while a dead run's claim waits."""
    open_output(twenty, Storage(tmp_path))
    now = 0.0
    with (
        other_run(tmp_path, range(15)),
        other_run(tmp_path, range(15, 16)) as dying,
        other_run(tmp_path, range(0)) as quick,
        Counted(Storage(tmp_path)) as claims,
    ):
        job = job_of(twenty, tmp_path, claims)
        executor = Scripted(job, lambda *_: None)
        this = Drive(job, executor, lambda: now)
        look = this._look_around

        def look_and_lose() -> None:
            look()
            for shard in range(16, 20):
                quick.take(shard_claim(shard))
            claims_module._OPEN.discard(dying.run.id)
            claims.now = Counted.now + 2 * SECONDS_KNOWN

        this._look_around = look_and_lose  # type: ignore[method-assign]
        this.hand_out()
        assert not executor.at_work and not this.is_over()
        now = 1000.0
        this.hand_out()
        assert [shard for _, shard in executor.at_work] == [15]


def test_drive__counts_in_what_others_have_made(twenty: Plan, tmp_path: Path) -> None:
    open_output(twenty, Storage(tmp_path))
    with Counted(Storage(tmp_path)) as claims:
        told: list[int] = []
        job = replace(job_of(twenty, tmp_path, claims), on_images=told.append)
        executor = Scripted(job, lambda *_: None)
        for shard in range(14):
            assert attempt(twenty, str(tmp_path), shard, lambda num: None) is None
        assert drive(job, executor) == Report()
    assert executor.tried == [*range(14, 20)] and sum(told) == twenty.num_samples
    assert claims.num_asked == MAX_TAKEN_BY_OTHERS + 6


def test_drive__what_another_run_has_just_given_up_is_named_and_not_tried(twenty: Plan, tmp_path: Path) -> None:
    open_output(twenty, Storage(tmp_path))
    earlier = write_failure(Storage(tmp_path), twenty, 15, PICTURE, 1)
    with other_run(tmp_path, range(12), time.time), Claims(Storage(tmp_path)) as claims:
        later = write_failure(Storage(tmp_path), twenty, 17, PICTURE, 1)
        job = job_of(twenty, tmp_path, claims)
        executor = Scripted(job, lambda *_: None)
        report = drive(job, executor)
    assert earlier.time < claims.run.started < later.time
    assert executor.tried == [12, 13, 14, 15, 16, 18, 19] and report == Report(failures=[later])
