"""Tests that a run applies the decisions of the policy, and skips the shards of other runs."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from builders.coordination import heartbeat as heartbeat_module
from builders.coordination import scheduler as scheduler_module
from builders.coordination.attempt import attempt
from builders.coordination.failures import read_failures, write_failure
from builders.coordination.heartbeat import Heartbeat, shards_of
from builders.coordination.job import Ended, Event, Images, Job, Report, Task
from builders.coordination.output import made_shards, read_state, write_target
from builders.coordination.policy import MAX_ATTEMPTS, MAX_FAILED_IN_A_ROW, Problem
from builders.coordination.scheduler import run_shards
from builders.errors import UnreachableError, UserError
from builders.make_clone import make_clone
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
from builders.storage.base import open_storage
from builders.storage.local import LocalStorage

DEATH = Problem(scope="worker", cause="the worker died", is_death=True)
UNEXPECTED = Problem(scope="worker", cause="RuntimeError: CUDA error", details="Traceback …")
UNREADABLE = Problem(scope="shard", cause="an image cannot be read")
Ends = Callable[[str, int, int], Problem | None]
"""Maps worker, shard and number of the attempt to the problem that it ends with; None makes the real shard."""


@dataclass
class Scripted:
    """Workers whose attempts end as a function decides."""

    job: Job
    ends: Ends
    idle: list[str] = field(default_factory=lambda: ["a", "b"])
    hangs: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.at_work: list[tuple[str, int]] = []
        self.tried: list[int] = []
        self.replaced: list[str] = []
        self.retired: list[str] = []
        self.num_workers = len(self.idle)

    def free(self) -> list[str]:
        return [worker for worker in self.idle if worker not in self.retired]

    def start(self, worker: str, shard: int, execution: Execution) -> None:
        self.idle.remove(worker)
        self.at_work.append((worker, shard))

    def poll(self, seconds: float, on_event: Callable[[Event], object]) -> None:
        ready = [one for one in self.at_work if one[0] not in self.hangs]
        if not ready:
            return
        self.at_work.remove(ready[0])
        worker, shard = ready[0]
        self.idle.append(worker)
        self.tried.append(shard)
        problem = self.ends(worker, shard, self.tried.count(shard))
        if problem is None:
            problem = attempt(
                self.job.task, shard, self.job.execution, lambda *counts: on_event(Images(worker, *counts))
            )
        on_event(Ended(worker, shard, problem))

    def replace(self, worker: str) -> None:
        self.replaced.append(worker)
        self.hangs.discard(worker)
        if gone := [one for one in self.at_work if one[0] == worker]:
            self.at_work.remove(gone[0])
            self.idle.append(worker)

    def retire(self, worker: str) -> None:
        self.retired.append(worker)

    def has_any(self) -> bool:
        return len(self.retired) < self.num_workers


def job_of(plan: Plan, out: Path, heartbeat: Heartbeat) -> Job:
    """Returns the job of a run that does not wait for other runs."""
    state = read_state(heartbeat.storage)
    write_target(plan, state)
    return Job(
        task=Task(plan=plan, out=str(out)),
        execution=Execution(),
        heartbeat=heartbeat,
        shards=list(range(plan.num_shards)),
        waits_for_others=False,
    )


def run(plan: Plan, out: Path, ends: Ends, workers: str = "ab") -> tuple[Scripted, Report]:
    """Runs a job without any other run."""
    with Heartbeat(open_storage(out)) as heartbeat:
        job = job_of(plan, out, heartbeat)
        scripted = Scripted(job, ends, [*workers])
        return scripted, run_shards(job, scripted)


def made_at(plan: Plan, out: Path) -> set[int]:
    return made_shards(plan, open_storage(out), range(plan.num_shards))


@contextmanager
def other_run(out: Path, shards: range) -> Iterator[Heartbeat]:
    """Another run that is alive and works on some shards."""
    with Heartbeat(open_storage(out)) as heartbeat:
        heartbeat.show(shards)
        yield heartbeat


@pytest.fixture
def twenty(real_plan: Plan) -> Plan:
    plan = Plan(real_plan.recipe, 40)
    assert plan.num_shards == 20
    return plan


def test_scheduler__a_shard_that_kills_workers_is_tried_last_and_fails(real_plan: Plan, tmp_path: Path) -> None:
    scripted, report = run(real_plan, tmp_path, lambda _, shard, n: DEATH if shard == 1 else None)
    assert scripted.tried == [0, 1, 2, 3, 1, 1, 1]
    [failure] = report.failures
    assert (failure.shard, failure.num_attempts) == (1, MAX_ATTEMPTS) and not report.has_given_up
    assert read_failures(open_storage(tmp_path)) == [failure]
    _, report = run(real_plan, tmp_path, lambda *_: None)
    assert read_failures(open_storage(tmp_path)) == [] and report.is_all_made


def test_scheduler__a_worker_whose_attempts_all_fail_is_retired(twenty: Plan, tmp_path: Path) -> None:
    scripted, report = run(twenty, tmp_path, lambda worker, *_: UNEXPECTED if worker == "b" else None)
    assert scripted.retired == ["b"] and not report.failures and report.is_all_made
    assert made_at(twenty, tmp_path) == set(range(20)) and len(scripted.tried) == 20 + MAX_FAILED_IN_A_ROW
    assert report.causes == ["worker b is retired: RuntimeError: CUDA error"]


def test_scheduler__a_run_without_workers_ends_and_names_the_cause(twenty: Plan, tmp_path: Path) -> None:
    scripted, report = run(twenty, tmp_path, lambda _, shard, n: UNEXPECTED if shard > 4 else None, workers="a")
    assert report.has_given_up and made_at(twenty, tmp_path) == set(range(5)) and len(scripted.tried) == 8
    assert report.failures == [] and report.causes == ["worker a is retired: RuntimeError: CUDA error"]


def test_scheduler__unreadable_images_fail_only_their_own_shards(twenty: Plan, tmp_path: Path) -> None:
    _, report = run(twenty, tmp_path, lambda _, shard, n: UNREADABLE if shard in range(11) else None)
    assert sorted(failure.shard for failure in report.failures) == [*range(11)] and not report.has_given_up
    assert made_at(twenty, tmp_path) == set(range(11, 20))


def test_scheduler__a_hung_worker_is_replaced_and_its_shard_made_by_others(twenty: Plan, tmp_path: Path) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 100.0
        return now[0]

    with Heartbeat(open_storage(tmp_path)) as heartbeat:
        job = job_of(twenty, tmp_path, heartbeat)
        scripted = Scripted(job, lambda *_: None, ["a", "b"], hangs={"b"})
        report = run_shards(job, scripted, clock)
    assert "b" in scripted.replaced and report.is_all_made and made_at(twenty, tmp_path) == set(range(20))


def test_scheduler__a_config_error_ends_the_run(twenty: Plan, tmp_path: Path) -> None:
    refused = Problem(scope="config", cause="no such model", error=UserError("no such model"))
    scripted, report = run(twenty, tmp_path, lambda *_: refused)
    assert report.error is refused.error and len(scripted.tried) <= 2 and read_failures(open_storage(tmp_path)) == []


def test_scheduler__a_stopped_run_finishes_the_shards_in_progress(twenty: Plan, tmp_path: Path) -> None:
    with Heartbeat(open_storage(tmp_path)) as heartbeat:
        job = job_of(twenty, tmp_path, heartbeat)

        def ends(_: str, shard: int, n: int) -> None:
            job.stop.is_requested |= shard == 3

        report = run_shards(job, Scripted(job, ends))
    assert report.is_stopped and made_at(twenty, tmp_path) == set(range(5))


def test_scheduler__shards_of_other_runs_are_skipped(twenty: Plan, tmp_path: Path) -> None:
    with other_run(tmp_path, range(17)), Heartbeat(open_storage(tmp_path)) as heartbeat:
        job = job_of(twenty, tmp_path, heartbeat)
        scripted = Scripted(job, lambda *_: None)
        report = run_shards(job, scripted)
    assert scripted.tried == [17, 18, 19] and not report.is_all_made and not report.has_given_up


def test_scheduler__shards_of_a_dead_run_are_made(twenty: Plan, tmp_path: Path) -> None:
    with (
        other_run(tmp_path, range(3)),
        other_run(tmp_path, range(3, 15)) as dying,
        Heartbeat(open_storage(tmp_path)) as heartbeat,
    ):

        def die(*_: object) -> None:
            heartbeat_module._ACTIVE.discard(dying.run)

        job = job_of(twenty, tmp_path, heartbeat)
        run_shards(job, Scripted(job, die))
        assert made_at(twenty, tmp_path) == set(range(3, 20))


def test_scheduler__a_run_waits_for_others_and_makes_their_remaining_shards(twenty: Plan, tmp_path: Path) -> None:
    with other_run(tmp_path, range(2)) as other, Heartbeat(open_storage(tmp_path)) as heartbeat:
        now = [0.0]

        def clock() -> float:
            now[0] += 1.0
            if now[0] > 200:
                other.show([])
            return now[0]

        job = replace(job_of(twenty, tmp_path, heartbeat), waits_for_others=True)
        assert run_shards(job, Scripted(job, lambda *_: None), clock).is_all_made


def test_scheduler__a_run_helps_others_only_if_few_of_them_are_alive(
    twenty: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builders.coordination.scheduler.random.random", lambda: 0.99)
    for num_others, expected in ((0, range(20)), (scheduler_module.MAX_HELPERS + 1, range(5))):
        out = tmp_path / str(num_others)
        with contextlib.ExitStack() as stack:
            for _ in range(num_others):
                stack.enter_context(Heartbeat(open_storage(out)))
            heartbeat = stack.enter_context(Heartbeat(open_storage(out)))
            job = replace(job_of(twenty, out, heartbeat), num_own=5)
            report = run_shards(job, scripted := Scripted(job, lambda *_: None))
            assert scripted.tried == [*expected] and report.is_all_made == (num_others == 0)
            assert not report.has_given_up and not report.failures


def test_scheduler__own_shards_are_tried_again_before_a_run_leaves(
    twenty: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builders.coordination.scheduler.random.random", lambda: 0.99)
    failed = Problem(scope="worker", cause="CUDA error")
    with contextlib.ExitStack() as stack:
        for _ in range(scheduler_module.MAX_HELPERS + 1):
            stack.enter_context(Heartbeat(open_storage(tmp_path)))
        heartbeat = stack.enter_context(Heartbeat(open_storage(tmp_path)))
        job = replace(job_of(twenty, tmp_path, heartbeat), num_own=5)
        scripted = Scripted(job, lambda worker, shard, number: failed if shard == 2 and number == 1 else None)
        run_shards(job, scripted)
    assert scripted.tried == [0, 1, 2, 3, 4, 2] and made_at(twenty, tmp_path) == set(range(5))


def test_scheduler__the_last_of_many_runs_knows_that_all_is_made(
    twenty: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of its workers is idle while many runs are alive; when the other one ends, no run is alive any more."""
    monkeypatch.setattr("builders.coordination.scheduler.random.random", lambda: 0.99)
    with Heartbeat(open_storage(tmp_path)) as heartbeat, contextlib.ExitStack() as stack:
        for _ in range(scheduler_module.MAX_HELPERS + 1):
            stack.enter_context(Heartbeat(open_storage(tmp_path)))
        job = replace(job_of(twenty, tmp_path, heartbeat), num_own=3)

        def end(worker: str, shard: int, number: int) -> None:
            if shard == 2:  # the others make all the rest, and end
                for other in range(3, 20):
                    assert attempt(job.task, other, Execution(), lambda *_: None) is None
                stack.close()

        assert run_shards(job, Scripted(job, end, ["a", "b"])).is_all_made


def test_scheduler__only_the_last_run_lists_everything(
    twenty: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that ends while another still works on a shard leaves the look at all files to that run."""
    listed: list[str] = []
    names = LocalStorage.names

    def watched(storage: LocalStorage, folder: str) -> list[str]:
        listed.append(folder)
        return names(storage, folder)

    monkeypatch.setattr(LocalStorage, "names", watched)
    with Heartbeat(open_storage(tmp_path)) as heartbeat, Heartbeat(open_storage(tmp_path)) as other:
        other.show([19])
        job = replace(job_of(twenty, tmp_path, heartbeat), num_own=20)
        assert not run_shards(job, Scripted(job, lambda *_: None)).is_all_made
        assert "_making" not in listed and next(iter(heartbeat.files())).count(".") == 1
        later = replace(job_of(twenty, tmp_path, other), shards=[19, *range(19)], num_own=1)
        other.show(())
        assert run_shards(later, Scripted(later, lambda *_: None)).is_all_made and "_making" in listed


def test_scheduler__a_run_whose_last_rival_was_killed_after_its_shard_is_the_last(twenty: Plan, tmp_path: Path) -> None:
    with Heartbeat(open_storage(tmp_path)) as heartbeat, Heartbeat(open_storage(tmp_path)) as killed:
        killed.show([19])
        job = replace(job_of(twenty, tmp_path, heartbeat), num_own=20)

        def end(worker: str, shard: int, number: int) -> None:
            if shard == 18:
                assert attempt(job.task, 19, Execution(), lambda *_: None) is None

        assert run_shards(job, Scripted(job, end)).is_all_made


def test_scheduler__images_of_other_runs_are_counted(twenty: Plan, tmp_path: Path) -> None:
    with Heartbeat(open_storage(tmp_path)) as heartbeat:
        seen: list[int] = []
        job = replace(job_of(twenty, tmp_path, heartbeat), on_images=seen.append)
        for shard in range(14):
            assert attempt(job.task, shard, Execution(), lambda *_: None) is None
        scripted = Scripted(job, lambda *_: None)
        assert run_shards(job, scripted).is_all_made
    assert scripted.tried == [*range(14, 20)] and sum(seen) == twenty.num_samples


def test_scheduler__a_shard_that_just_failed_elsewhere_is_reported_and_not_tried(twenty: Plan, tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    with other_run(tmp_path, range(12)) as other, Heartbeat(storage) as heartbeat:
        job = job_of(twenty, tmp_path, heartbeat)
        earlier = write_failure(storage, twenty, 15, UNREADABLE, 1)

        def ends(_: str, shard: int, n: int) -> None:
            # Meanwhile a shard of the other run fails permanently.
            if shard == 12:
                write_failure(storage, twenty, 3, UNREADABLE, 1)
                other.show(range(12))

        scripted = Scripted(job, ends)
        report = run_shards(job, scripted)
    assert [failure.shard for failure in report.failures] == [3] and earlier.shard in scripted.tried


def test_scheduler__calls_are_retried_while_the_store_is_down(
    twenty: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builders.coordination.patience.FIRST_WAIT", 0.001)
    exists, left = LocalStorage.exists, [0]

    def flaky(storage: LocalStorage, name: str) -> bool:
        left[0] += 1
        if left[0] % 5 < 2:
            raise UnreachableError("no answer")
        return exists(storage, name)

    with Heartbeat(open_storage(tmp_path)) as heartbeat:
        job = job_of(twenty, tmp_path, heartbeat)
        monkeypatch.setattr(LocalStorage, "exists", flaky)
        job = replace(job, task=replace(job.task, patience=60.0))
        assert run_shards(job, Scripted(job, lambda *_: None)).is_all_made
        with pytest.raises(UnreachableError):
            job = replace(job, task=replace(job.task, patience=0.0))
            left[0] = -1
            run_shards(job, Scripted(job, lambda *_: None))


def test_scheduler__an_idle_run_shows_no_shards(twenty: Plan, tmp_path: Path) -> None:
    """Otherwise another run that has to make this run's last shard again would wait for it."""
    with other_run(tmp_path, range(17)) as other, Heartbeat(open_storage(tmp_path)) as heartbeat:
        job = job_of(twenty, tmp_path, heartbeat)
        run_shards(job, Scripted(job, lambda *_: None))
        assert shards_of(other.others()) == set()


@pytest.mark.parametrize("during", [7, 8])
def test_scheduler__shards_of_a_shorter_clone_finalized_meanwhile_are_kept(
    twenty: Plan, tmp_path: Path, during: int
) -> None:
    """Before the longer clone has its first shard, the shorter one replaces it as the target, and ends its run."""
    short = Plan(twenty.recipe, 10)
    with Heartbeat(open_storage(tmp_path), twenty.recipe.hash) as heartbeat:
        job = job_of(twenty, tmp_path, heartbeat)

        def finish(_: str, shard: int, n: int) -> None:
            if shard == during:
                assert make_clone(short, str(tmp_path)) is not None

        seen: list[int] = []
        job = replace(job, shards=[7, 8, *range(7), *range(9, 20)], on_images=seen.append)
        scripted = Scripted(job, finish, ["a"])
        report = run_shards(job, scripted)
    assert (report.is_finalized_elsewhere, report.is_all_made) == (during == 7, during == 8)
    assert set(scripted.tried).isdisjoint(range(short.num_shards))
    assert during == 7 or sum(seen) == twenty.num_samples
    assert make_clone(twenty, str(tmp_path)) is not None


def test_scheduler__a_run_whose_target_a_shorter_clone_replaced_still_makes_its_shards(
    twenty: Plan, tmp_path: Path
) -> None:
    short = Plan(twenty.recipe, 10)

    def make_shorter(_: int) -> None:
        if not (tmp_path / "clone.json").exists():
            assert make_clone(short, str(tmp_path)) is not None

    assert make_clone(twenty, str(tmp_path), shards=range(6, 9), on_images=make_shorter) is None
    assert made_at(twenty, tmp_path) >= {6, 7, 8} and read_state(open_storage(tmp_path)).is_complete(short)


def test_scheduler__a_setting_that_breaks_images_ends_the_run_at_once(recipe: Recipe, tmp_path: Path) -> None:
    plan = Plan(replace(recipe, engine="folder", safety="off", shard_size=10_000), 6)
    with Heartbeat(open_storage(tmp_path)) as heartbeat:
        job = job_of(plan, tmp_path, heartbeat)

        class Broken(Scripted):
            def poll(self, seconds: float, on_event: Callable[[Event], object]) -> None:
                for _ in range(1000):
                    self.tried.append(0)
                    on_event(Images("a", 0, 50, 50, 0))

        scripted = Broken(job, lambda *_: None, ["a"])
        report = run_shards(job, scripted)
    assert len(scripted.tried) == 4 and isinstance(report.error, UserError) and not report.is_all_made


def test_scheduler__thirty_deaths_end_the_run_and_name_the_cause(twenty: Plan, tmp_path: Path) -> None:
    plan, notes = Plan(twenty.recipe, 62), list[str]()
    with Heartbeat(open_storage(tmp_path)) as heartbeat:
        job = replace(job_of(plan, tmp_path, heartbeat), on_warning=notes.append)
        report = run_shards(job, Scripted(job, lambda *_: DEATH))
    assert report.has_given_up and "the worker died" in report.causes and len(notes) >= 30


def test_scheduler__images_of_a_finished_shard_are_not_in_progress(twenty: Plan, tmp_path: Path) -> None:
    counts: list[int] = []
    with Heartbeat(open_storage(tmp_path)) as heartbeat:
        job = replace(
            job_of(twenty, tmp_path, heartbeat),
            on_images=lambda _: counts.append(heartbeat.summary.get("num_images", 0)),
        )
        run_shards(job, Scripted(job, lambda *_: None, ["a"]))
        assert max(counts) > 0 and heartbeat.summary["num_images"] == 0
