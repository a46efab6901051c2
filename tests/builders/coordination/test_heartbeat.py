"""Tests of heartbeat files: runs see each other's shards in one listing until they end, whatever the clocks are."""

import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from builders.coordination import heartbeat as heartbeat_module
from builders.coordination.heartbeat import (
    LEASE,
    MAX_RANGES,
    SECONDS_TO_KEEP,
    Heartbeat,
    RunFile,
    alive_runs,
    ranges,
    read_summary,
    shards_of,
)
from builders.errors import UserError
from builders.format.names import RUNS
from builders.storage.base import open_storage
from tests.loopback.hub import Hub, hub_environment


@pytest.mark.parametrize(
    ("shards", "text"),
    [((), ""), ((3,), "3"), ((12, 13, 14, 15, 18), "12-15+18"), ((5, 3, 4), "3-5"), ((0, 2), "0+2")],
)
def test_heartbeat__shards_are_written_as_ranges_in_a_name(shards: tuple[int, ...], text: str) -> None:
    assert ranges(shards) == text
    assert RunFile(f"{RUNS}/x-1-y.{text}.json", None).shards == set(shards)


def test_heartbeat__a_name_stays_short_and_covers_all_shards() -> None:
    shards = set(range(0, 9000, 7)) | {64_999}
    text = ranges(shards)
    assert len(text) < 200 and text.count("+") < MAX_RANGES
    assert shards <= RunFile(f"{RUNS}/x.{text}.json", None).shards


def test_heartbeat__runs_see_each_other_until_they_end(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    with Heartbeat(storage) as first, Heartbeat(storage) as second:
        first.show([1, 2])
        second.show([5])
        assert shards_of(first.others()) == {5} and shards_of(second.others()) == {1, 2}
        first.show([])
        assert shards_of(second.others()) == set() and len(second.others()) == 1
    assert list(tmp_path.iterdir()) == []


def test_heartbeat__a_remote_run_is_dead_after_its_lease_by_the_stores_clock(
    tmp_path: Path,
) -> None:
    storage = open_storage(tmp_path)
    with Heartbeat(storage) as ours:
        storage.write(f"{RUNS}/beef-1-a.7.json", b"{}")
        file, own = tmp_path / f"{RUNS}/beef-1-a.7.json", tmp_path / next(iter(ours.files()))
        # The store's clock may differ from this machine's by years.
        for offset in (0, 10**8):
            now = os.stat(own).st_mtime + offset
            os.utime(own, (now, now))
            os.utime(file, (now - LEASE + 2, now - LEASE + 2))
            assert shards_of(ours.others()) == {7}
            os.utime(file, (now - LEASE - 2, now - LEASE - 2))
            assert ours.others() == []
        os.utime(file, (now - SECONDS_TO_KEEP - 2, now - SECONDS_TO_KEEP - 2))
        assert ours.others() == [] and not file.exists()


def test_heartbeat__a_killed_process_of_this_machine_is_dead_at_once(tmp_path: Path) -> None:
    code = (
        "import os; from builders.coordination.heartbeat import Heartbeat; from builders.storage.base import open_storage\n"
        f"heartbeat = Heartbeat(open_storage({str(tmp_path)!r})).__enter__(); heartbeat.show([4]); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    with Heartbeat(open_storage(tmp_path)) as ours:
        assert len(open_storage(tmp_path).names(RUNS)) == 2 and ours.others() == []


def test_heartbeat__one_of_several_runs_finalizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat_module, "SECONDS_TO_SETTLE", 0.0)
    storage = open_storage(tmp_path)
    with Heartbeat(storage) as first, Heartbeat(storage) as second:
        assert first.may_finalize() and first.may_finalize()
        assert not second.may_finalize()
        assert [seen.is_finalizing for seen in second.others()] == [True]
    with Heartbeat(storage) as third:
        assert third.may_finalize()


def test_heartbeat__of_two_simultaneous_finalizers_one_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat_module, "SECONDS_TO_SETTLE", 0.0)
    storage = open_storage(tmp_path)
    with Heartbeat(storage) as first, Heartbeat(storage) as second:
        for heartbeat in (first, second):
            heartbeat.show((), is_finalizing=True)
        assert sorted([first.may_finalize(), second.may_finalize()]) == [False, True]


def test_heartbeat__an_observer_compares_with_its_own_clock(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    storage.write(f"{RUNS}/beef-1-a.7.json", b"{}")
    now = datetime.now(UTC)
    assert len(alive_runs(storage, now)) == 1 and alive_runs(storage, now + timedelta(seconds=2 * LEASE)) == []


def test_heartbeat__on_s3_runs_see_each_other(s3: str) -> None:
    storage = open_storage(f"{s3}/board")
    with Heartbeat(storage) as first, Heartbeat(storage) as second:
        first.show([1, 2])
        second.show([5])
        assert shards_of(first.others()) == {5} and shards_of(second.others()) == {1, 2}
        assert first.may_finalize() and not second.may_finalize()
    assert storage.names("_making") == []


ON_A_BUCKET = """
from builders.storage.base import open_storage
from builders.coordination.heartbeat import Heartbeat, shards_of
storage = open_storage("hf://buckets/user/clones/out")
with Heartbeat(storage) as living, Heartbeat(storage) as ours:
    for shards in ([1, 2], [3], []):
        living.show(shards)
        print(sorted(shards_of(ours.others())), len(ours.others()))
"""


def test_heartbeat__runs_in_a_bucket_are_listed_without_a_cache(hub: Hub, tmp_path: Path) -> None:
    """Each thread's client caches its own listings, which lack later files."""
    hub.buckets["user/clones"] = {}
    environment = hub_environment(hub, tmp_path / "home", xet=True)
    done = subprocess.run(
        [sys.executable, "-c", ON_A_BUCKET], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "[1, 2] 1\n[3] 1\n[] 1\n", done.stderr


def test_heartbeat__the_file_is_rewritten_with_the_new_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat_module, "BEAT", 0.02)
    storage = open_storage(tmp_path)
    with Heartbeat(storage) as ours:
        ours.summary |= {"num_images": 7}
        for _ in range(200):
            [seen] = alive_runs(storage)
            if read_summary(storage, seen).get("num_images") == 7:
                break
            threading.Event().wait(0.02)
        assert read_summary(storage, seen)["num_images"] == 7 and read_summary(storage, seen)["pid"] == os.getpid()


def test_heartbeat__damaged_and_foreign_files_have_no_summary(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    for name in ("x.json", "beef-x-1.3.json", "beef-99999999999999999999-1.4.json", ".json", "a.b.c"):
        storage.write(f"{RUNS}/{name}", b'{"run"')
    with Heartbeat(storage) as ours:
        # They count as alive until their lease has ended.
        assert shards_of(ours.others()) == {3, 4}
        assert all(read_summary(storage, seen) == {} for seen in ours.others())


def test_heartbeat__a_run_of_another_recipe_is_reported(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    with Heartbeat(storage, "a" * 64) as first, Heartbeat(storage, "a" * 64) as same:
        first.check_recipe()
        same.check_recipe()
        with Heartbeat(storage, "b" * 64) as other, pytest.raises(UserError, match="is being made from another recipe"):
            other.check_recipe()
