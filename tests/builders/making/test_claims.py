"""Claims of several runs on one output: one holder at a time while it lives, and none is held for ever."""

import json
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from builders.format.storage import Storage
from builders.making import claims as claims_module
from builders.making.claims import LEASE, RUNS, Claims
from tests.loopback.hub import Hub, hub_environment


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_claims__are_held_by_one_run_until_it_gives_them_up(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    with Claims(storage) as first, Claims(storage) as second:
        assert first.take("000001") and first.take("000001")
        assert not second.take("000001") and second.take("000002")
        first.release("000001")
        assert second.take("000001") and not first.take("000001")
    assert list(tmp_path.iterdir()) == []


def test_claims__of_a_run_that_says_nothing_any_more_are_lost_after_a_lease(tmp_path: Path) -> None:
    storage, clock = Storage(tmp_path), Clock()
    with Claims(storage, clock=clock) as first, Claims(storage, clock=clock) as second:
        first.take("000001")
        clock.now += LEASE / 2
        second.beat()
        assert not second.take("000001")
        clock.now += LEASE / 2 + 1
        second.beat()
        assert second.take("000001")
        clock.now += LEASE / 2
        first.beat()
        assert not first.take("000001")


def test_claims__of_a_process_that_is_gone_are_lost_at_once(tmp_path: Path) -> None:
    code = (
        "import os, sys; from builders.making.claims import Claims; from builders.format.storage import Storage\n"
        f"claims = Claims(Storage({str(tmp_path)!r})).__enter__(); assert claims.take('000001'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    with Claims(Storage(tmp_path)) as claims:
        assert claims.take("000001")


def test_claims__of_another_host_wait_for_the_lease(tmp_path: Path) -> None:
    storage, clock = Storage(tmp_path), Clock()
    with Claims(storage, clock=clock) as first, Claims(storage, clock=clock) as second:
        elsewhere = replace(first.run, host="elsewhere", machine="another", pid=1)
        storage.write(f"{RUNS}/{first.run.id}.json", json.dumps(asdict(elsewhere)).encode())
        first.take("000001")
        assert not second.take("000001")
        clock.now += LEASE + 1
        assert second.take("000001")


def test_claims__of_an_unknown_run_and_torn_files_are_nobodys(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    storage.write("_making/claims/000001.json", b'{"run": "gone"}')
    storage.write("_making/claims/000002.json", b'{"run"')
    with Claims(storage) as claims:
        assert claims.take("000001") and claims.take("000002")


def test_claims__of_many_at_once_one_has_it(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    took: list[int] = []
    with Claims(storage) as claims:
        others = [Claims(storage) for _ in range(8)]
        for other in others:
            claims_module._OPEN.add(other.run.id)
            other.beat()
        barrier = threading.Barrier(8)

        def race(number: int) -> None:
            barrier.wait()
            took.extend(number for _ in range(1) if others[number].take("000001"))

        threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(took) == 1 and not claims.take("000001")
        claims_module._OPEN.difference_update(other.run.id for other in others)


def test_claims__on_s3_are_held_by_one(s3: str) -> None:
    storage = Storage(f"{s3}/claims")
    with Claims(storage) as first, Claims(storage) as second:
        assert first.take("000001") and not second.take("000001")
        first.release("000001")
        assert second.take("000001")
    assert storage.names("_making") == []


def test_claims__on_s3_those_of_the_dead_are_found_among_many(s3: str) -> None:
    storage = Storage(f"{s3}/lost")
    with Claims(storage) as living, Claims(storage) as ours:
        dead = Claims(storage)
        claims_module._OPEN.add(dead.run.id)
        dead.beat()
        names = [f"{number:06d}" for number in range(20)]
        assert all((dead if number % 3 == 0 else living).take(name) for number, name in enumerate(names))
        assert ours.taken() == set(names) and ours.lost(names) == []
        claims_module._OPEN.discard(dead.run.id)
        ours._known.clear()
        assert ours.lost(names) == names[::3]
        for name in names[::3]:
            assert ours.take(name)


ON_A_BUCKET = """
from builders.format.storage import Storage
from builders.making.claims import Claims
storage = Storage("hf://buckets/user/clones/out")
with Claims(storage) as living, Claims(storage) as ours:
    names = [f"{number:06d}" for number in range(24)]
    for some in (names[:8], names[8:]):
        for name in some:
            assert living.take(name)
        print(ours.lost(some), ours.taken() >= set(some))
"""


def test_claims__in_a_bucket_are_seen_as_they_are_now(hub: Hub, tmp_path: Path) -> None:
    """Each thread's client keeps listings of its own, which know nothing of later claims."""
    hub.buckets["user/clones"] = {}
    environment = hub_environment(hub, tmp_path / "home", xet=True)
    done = subprocess.run(
        [sys.executable, "-c", ON_A_BUCKET], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "[] True\n[] True\n", done.stderr


def test_create__of_two_at_once_on_s3_one_succeeds(s3: str) -> None:
    storage, done = Storage(f"{s3}/create"), list[bool]()
    barrier = threading.Barrier(4)

    def race(number: int) -> None:
        barrier.wait()
        done.append(Storage(f"{s3}/create").create("one", str(number).encode()))

    threads = [threading.Thread(target=race, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(done) == 1 and len(storage.read("one")) == 1


def test_claims__keep_beating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims_module, "BEAT", 0.02)
    with Claims(Storage(tmp_path)) as claims:
        path = tmp_path / f"{RUNS}/{claims.run.id}.json"
        first = path.read_bytes()
        for _ in range(200):
            if path.read_bytes() != first:
                break
            threading.Event().wait(0.02)
        assert json.loads(path.read_text())["beat"] > claims.run.beat


def test_claims__names_of_hosts_may_be_alike(tmp_path: Path) -> None:
    """Two containers called alike: the other's process cannot be looked for here."""
    storage = Storage(tmp_path)
    with Claims(storage) as first, Claims(storage) as second:
        other = replace(first.run, machine="another", pid=2**22)
        storage.write(f"{RUNS}/{first.run.id}.json", json.dumps(asdict(other)).encode())
        first.take("000001")
        assert not second.take("000001")
