"""Tests of the policy: each failure affects only what it concerns. Events go in, decisions come out."""

from dataclasses import replace

import pytest

from builders.coordination.policy import (
    MAX_ATTEMPTS,
    MAX_DEATHS,
    MAX_FAILED_IN_A_ROW,
    MIN_SECONDS,
    SECONDS_BEFORE_FIRST,
    Decision,
    End,
    GiveUp,
    Policy,
    Problem,
    Replace,
    Requeue,
    Retire,
)
from builders.errors import UnreachableError, UserError
from builders.recipes.execution import AUTO, Execution

UNEXPECTED = Problem(scope="worker", cause="CUDA error", details="Traceback …")
DEATH = Problem(scope="worker", cause="the worker died", is_death=True)
FULL = Problem(scope="worker", cause="No space left on device", is_final=True)
UNREADABLE = Problem(scope="shard", cause="an image cannot be read")
REFUSED = Problem(scope="config", cause="no such model", error=UserError("no such model"))
LOST = Problem(scope="machine", cause="its node was lost")
SILENT = Problem(scope="store", cause="no answer", error=UnreachableError("no answer"))


def policy(*, batch_size: int = 8, is_begun: bool = False) -> Policy:
    return Policy(Execution(batch_size=batch_size), is_begun=is_begun)


def end(this: Policy, worker: str, shard: int, problem: Problem | None) -> list[Decision]:
    this.on_start(worker, shard, 0.0)
    return this.on_end(worker, shard, problem)


def test_policy__a_config_error_ends_the_run_only_before_the_first_shard() -> None:
    this = policy()
    assert end(this, "a", 0, REFUSED) == [End(REFUSED.error, REFUSED.cause)]
    assert end(policy(is_begun=True), "a", 0, REFUSED)[-1] == Retire("a", REFUSED.cause)
    this = policy()
    assert end(this, "a", 0, None) == []
    assert end(this, "b", 1, REFUSED) == [Requeue(1, is_next=True), Retire("b", REFUSED.cause)]


def test_policy__an_unreadable_shard_fails_at_once() -> None:
    this = policy()
    for shard in range(20):
        assert end(this, "a", shard, UNREADABLE) == [GiveUp(shard, UNREADABLE, 1)]


def test_policy__unexpected_errors_replace_the_process_then_retire_the_worker() -> None:
    this = policy()
    for shard in range(MAX_FAILED_IN_A_ROW - 1):
        assert end(this, "a", shard, UNEXPECTED) == [Requeue(shard, is_next=False), Replace("a", UNEXPECTED.cause)]
    assert end(this, "a", 7, UNEXPECTED) == [Requeue(7, is_next=False), Retire("a", UNEXPECTED.cause)]
    assert end(this, "b", 7, UNEXPECTED)[-1] == Replace("b", UNEXPECTED.cause)


def test_policy__a_success_in_between_keeps_the_worker() -> None:
    this = policy()
    for shard in range(20):
        assert end(this, "a", shard, UNEXPECTED) == [Requeue(shard, is_next=False), Replace("a", UNEXPECTED.cause)]
        assert end(this, "a", shard, None) == []


def test_policy__a_shard_fails_permanently_after_three_attempts() -> None:
    this = policy()
    for number, worker in enumerate("abc"):
        found = end(this, worker, 5, UNEXPECTED)
        end(this, worker, 100 + number, None)
    assert found[0] == GiveUp(5, UNEXPECTED, MAX_ATTEMPTS)


def test_policy__deaths_count_only_without_a_success_in_between() -> None:
    this = policy()
    for _ in range(10):
        assert end(this, "a", 0, DEATH) == [Requeue(0, is_next=False), Replace("a", DEATH.cause)]
        assert end(this, "a", 1, None) == []
    for _ in range(MAX_ATTEMPTS - 1):
        assert end(this, "a", 0, DEATH)[0] == Requeue(0, is_next=False)
    assert end(this, "a", 0, DEATH)[0] == GiveUp(0, DEATH, MAX_ATTEMPTS)


def test_policy__many_deaths_in_a_row_end_the_run() -> None:
    this = policy()
    found = [end(this, "a", shard, DEATH) for shard in range(MAX_DEATHS)]
    end_of_run = End(None, DEATH.cause)
    assert end_of_run in found[-1] and not any(end_of_run in decisions for decisions in found[:-1])


def test_policy__a_full_scratch_retires_only_its_worker() -> None:
    assert end(policy(), "a", 3, FULL) == [Requeue(3, is_next=True), Retire("a", FULL.cause)]


def test_policy__a_lost_node_does_not_count_as_a_failure() -> None:
    this = policy()
    assert all(end(this, "a", 3, LOST) == [Requeue(3, is_next=True)] for _ in range(100))


def test_policy__a_silent_store_ends_the_run_with_its_error() -> None:
    assert end(policy(is_begun=True), "a", 3, SILENT) == [End(SILENT.error, SILENT.cause)]
    assert SILENT.error is not None and SILENT.error.exit_status == 75


def test_policy__out_of_memory_retires_at_a_fixed_batch_size() -> None:
    problem = Problem(scope="memory", cause="out of memory", batch_size=8)
    assert end(policy(), "a", 3, problem) == [Requeue(3, is_next=True), Retire("a", "out of memory")]


def test_policy__out_of_memory_halves_the_batch_of_that_worker_under_auto() -> None:
    this, problem = policy(batch_size=AUTO), Problem(scope="memory", cause="out of memory", batch_size=8)
    assert end(this, "a", 3, problem) == [Requeue(3, is_next=True)]
    assert this.on_start("a", 3, 0.0).batch_size == 4 and this.on_start("b", 4, 0.0).is_auto
    assert this.on_end("a", 3, replace(problem, batch_size=4)) == [Requeue(3, is_next=True)]
    assert this.on_start("a", 3, 0.0).batch_size == 2
    assert this.on_end("a", 3, replace(problem, batch_size=1))[-1] == Retire("a", "out of memory")


def test_policy__a_worker_without_a_new_image_for_long_is_hung() -> None:
    this = policy()
    this.on_start("a", 3, 0.0)
    assert this.on_tick(SECONDS_BEFORE_FIRST) == []
    [(worker, problem)] = this.on_tick(SECONDS_BEFORE_FIRST + 1)
    assert worker == "a" and problem.scope == "worker" and "60 minutes" in problem.cause
    this.on_images("a", 8, 0, 0, 100.0)
    # Ten times the median batch time.
    assert this.on_tick(100.0 + 10 * 100.0) == [] and this.on_tick(100.0 + 10 * 100.0 + 1)
    for when in range(101, 200):
        this.on_images("a", 8, 0, 0, float(when))
    assert this.on_tick(199.0 + MIN_SECONDS) == [] and this.on_tick(200.0 + MIN_SECONDS)
    # A sign of life while the worker waits for a store.
    this.on_images("a", 0, 0, 0, 900.0)
    assert this.on_tick(1000.0) == []
    this.on_end("a", 3, None)
    assert this.on_tick(1e9) == []


@pytest.mark.parametrize(("num_broken", "ends"), [(100, False), (101, True), (200, True)])
def test_policy__more_than_half_broken_at_first_ends_the_run(num_broken: int, ends: bool) -> None:
    this = policy()
    this.on_start("a", 0, 0.0)
    assert this.on_images("a", 100, min(num_broken, 100), 0, 1.0) == []
    found = this.on_images("a", 100, max(0, num_broken - 100), 0, 2.0)
    assert bool(found) == ends
    if ends:
        assert (
            isinstance(found[0], End)
            and found[0].is_now
            and f"{num_broken} of the first 200 images" in str(found[0].error)
        )
    assert this.on_images("a", 1000, 1000, 0, 3.0) == []


def test_policy__broken_images_do_not_end_a_run_with_a_finished_shard() -> None:
    for this in (policy(is_begun=True), policy()):
        end(this, "a", 0, None) if not this.is_proven else None
        this.on_start("a", 1, 0.0)
        assert this.on_images("a", 200, 200, 0, 1.0) == []


def test_policy__a_replaced_process_has_an_hour_to_load_its_model() -> None:
    this = policy()
    this.on_start("a", 3, 0.0)
    for when in range(1, 9):
        this.on_images("a", 8, 0, 0, float(when))
    this.on_end("a", 3, UNEXPECTED)
    this.on_start("a", 3, 10.0)
    assert this.on_tick(10.0 + SECONDS_BEFORE_FIRST) == [] and this.on_tick(11.0 + SECONDS_BEFORE_FIRST)
    this.forget("a")
    assert this.on_tick(1e9) == []
