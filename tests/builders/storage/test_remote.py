"""Clones are read and written over HTTP and S3."""

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builders.errors import UnreachableError, UserError
from builders.format.manifest import Manifest
from builders.format.open_clone import Clone, open_clone
from builders.format.shard_cache import ShardCache
from builders.make_clone import make_clone
from builders.planning.plan import Plan
from builders.publishing.push_to_url import push_to_url
from builders.storage.base import open_storage
from builders.storage.remote import RemoteStorage
from builders.verification.verify_clone import verify_clone
from tests.loopback.files import FileServer
from tests.loopback.server import Fault, failing, running


@pytest.fixture
def server(finished: tuple[Path, Manifest]) -> Iterator[FileServer]:
    with running(FileServer(finished[0])) as found:
        yield found


def samples(root: str | Path, cache: ShardCache | None = None) -> list[tuple[str, int, bytes]]:
    return [(sample.key, sample.label, sample.image) for sample in open_clone(root, cache)]


def test_remote__a_few_samples_need_few_bytes(server: FileServer, finished: tuple[Path, Manifest]) -> None:
    local, clone = open_clone(finished[0]), open_clone(server.url)
    assert clone[41] == local[41] and clone.find(local.key(60)) == 60
    shards = {path: sent for path, sent in server.traffic.sent_by_path.items() if path.endswith("tar")}
    assert list(shards.values()) == [len(local[41].image)]


def test_remote__samples_are_the_same_by_ranges_and_through_the_cache(
    server: FileServer, finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    cache = ShardCache(tmp_path / "cache", 10**8)
    assert samples(server.url) == samples(server.url, cache) == samples(finished[0])
    sent = server.traffic.sent_by_path.copy()
    assert samples(server.url, cache) == samples(finished[0])
    again = {path: server.traffic.sent_by_path[path] - sent[path] for path in sent}
    assert {path for path, num_bytes in again.items() if num_bytes} == {"/clone.json"}


def viewed(clone: Clone, numbers: Iterable[int]) -> list[tuple[str, int, bytes]]:
    return [(view.key, view.label, bytes(view.image)) for view in clone.views(list(numbers))]


def shard_bytes(server: FileServer) -> dict[str, int]:
    return {path: sent for path, sent in server.traffic.sent_by_path.items() if path.endswith("tar")}


MIXED = (41, 3, 57, 3, 60, 12)


def test_remote__first_batches_are_read_by_ranges_and_later_ones_from_shards(
    server: FileServer, finished: tuple[Path, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = samples(finished[0])
    budget = sum(len(expected[number][2]) for number in {*MIXED, 5})
    monkeypatch.setattr("builders.format.open_clone.BYTES_PAST_CACHE", budget - 1)
    clone = open_clone(server.url, ShardCache(tmp_path / "cache", 10**8))
    assert viewed(clone, MIXED) == [expected[number] for number in MIXED]
    requested = sum(len(expected[number][2]) for number in set(MIXED))
    # The additional byte tests whether the server supports ranges.
    assert sum(shard_bytes(server).values()) == requested + 1
    shards = clone.manifest.shards
    assert viewed(clone, [5, *MIXED]) == [expected[number] for number in (5, *MIXED)]
    whole = sum(shards[shard].num_bytes for shard in {clone.locate(number)[0] for number in (5, *MIXED)})
    assert requested + 1 + whole <= sum(shard_bytes(server).values()) <= requested + 1 + whole + budget


@pytest.mark.parametrize("fault", [Fault(corrupt=True), Fault(status=503), Fault(drop_after=100)])
def test_remote__after_a_failed_range_the_shard_is_fetched(
    server: FileServer, finished: tuple[Path, Manifest], tmp_path: Path, fault: Fault
) -> None:
    expected = samples(finished[0])
    clone = open_clone(server.url, ShardCache(tmp_path / "cache", 10**8))
    assert viewed(clone, [0]) == expected[:1]
    faults = [fault]
    server.traffic.choose = lambda method, path: faults.pop() if faults and path.endswith("tar") else None
    assert viewed(clone, range(20)) == expected[:20] and not faults and any(map(clone._is_in_cache, range(2)))
    without = open_clone(server.url)
    faults.append(fault)
    assert viewed(without, range(20)) == expected[:20] and not faults


def test_remote__a_missing_shard_is_reported(
    server: FileServer, finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    server.traffic.choose = lambda method, path: Fault(status=404) if path.endswith("000000.tar") else None
    for cache in (None, ShardCache(tmp_path / "cache", 10**8)):
        clone = open_clone(server.url, cache)
        last = len(clone) - 1
        assert viewed(clone, [last]) == samples(finished[0])[last:]
        with pytest.raises(UserError, match=r"000000\.tar.* is not there"):
            clone.views([last, 0])


def test_remote__samples_are_read_through_a_failing_network(
    server: FileServer, finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    server.traffic.choose = failing(0.2)
    assert samples(server.url, ShardCache(tmp_path / "cache", 10**8)) == samples(finished[0])
    server.traffic.choose = failing(0.05)
    assert samples(server.url) == samples(finished[0])


def test_remote__a_corrupted_range_is_reported_with_its_key(server: FileServer) -> None:
    clone = open_clone(server.url)
    _ = clone.key(3)
    server.traffic.choose = lambda method, path: Fault(corrupt=True)
    with pytest.raises(UserError, match=rf"sample '{clone.key(3)}' .* was fetched twice, and has another sha256"):
        _ = clone[3]


def test_remote__a_warm_cache_works_offline(
    server: FileServer, finished: tuple[Path, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builders.storage.retry._wait", lambda state: 0.0)
    cache = ShardCache(tmp_path / "cache", 10**8)
    samples(server.url, cache)
    server.traffic.choose = lambda method, path: Fault(drop_after=0)
    with pytest.warns(UserWarning, match="reading the version that the cache saw last"):
        assert samples(server.url, cache) == samples(finished[0])
        assert viewed(open_clone(server.url, cache), MIXED) == viewed(open_clone(finished[0]), MIXED)
    server.traffic.choose = lambda method, path: Fault(status=404)
    # The status 404 is not a network error.
    with pytest.raises(UserError, match="no clone at"):
        open_clone(server.url, cache)
    server.traffic.choose = lambda method, path: Fault(drop_after=0)
    for memory in (tmp_path / "cache/opened").iterdir():
        memory.write_text("broken")
    with pytest.raises(UnreachableError, match=r"clone\.json: every attempt failed"):
        open_clone(server.url, cache)
    with pytest.raises(UnreachableError, match=r"clone\.json: every attempt failed"):
        open_clone(server.url, ShardCache(tmp_path / "cold", 10**8))


def test_remote__a_server_without_ranges_works(finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(finished[0])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().partition("(")[2].partition("/)")[0]
        try:
            assert samples(url, ShardCache(tmp_path / "cache", 10**8)) == samples(finished[0])
            assert open_clone(url)[5] == open_clone(finished[0])[5]
            for cache in (None, ShardCache(tmp_path / "another", 10**8)):
                clone = open_clone(url, cache)
                assert viewed(clone, MIXED) == viewed(open_clone(finished[0]), MIXED)
            assert cache is not None and all(cache.has(clone.manifest.shards[clone.locate(n)[0]]) for n in MIXED)
        finally:
            process.kill()


def test_remote__a_pickled_clone_does_not_read_its_manifest_again(server: FileServer, tmp_path: Path) -> None:
    clone = open_clone(server.url, ShardCache(tmp_path / "cache", 10**8))
    before = server.traffic.requests["GET /clone.json"]
    sent = pickle.loads(pickle.dumps(clone))
    assert sent[3] == clone[3] and sent.cache == clone.cache
    assert server.traffic.requests["GET /clone.json"] == before


def test_remote__a_missing_clone_is_reported(server: FileServer) -> None:
    with pytest.raises(UserError, match=r"no clone at '.*/nowhere' \(no clone\.json\)"):
        open_clone(f"{server.url}/nowhere")


def test_remote__opening_imports_no_torch(finished: tuple[Path, Manifest]) -> None:
    code = "import sys\nfrom builders.format.open_clone import open_clone\n"
    code += "open_clone(sys.argv[1])[0]\nprint('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code, str(finished[0])], capture_output=True, text=True)
    assert ended.stdout.strip() == "False"


def local_contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def contents(url: str) -> dict[str, bytes]:
    storage = open_storage(url)
    return {name: storage.read(name) for name in storage.names("")}


def test_remote__a_clone_made_on_s3_equals_the_local_one(
    s3: str, real_plan: Plan, finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    make_clone(Plan(real_plan.recipe, 4), f"{s3}/made")
    # The clone grows.
    make_clone(real_plan, f"{s3}/made")
    assert contents(f"{s3}/made") == local_contents(finished[0])
    assert list(verify_clone(f"{s3}/made", deep=True)) == []
    assert samples(f"{s3}/made", ShardCache(tmp_path / "cache", 10**8)) == samples(f"{s3}/made") == samples(finished[0])


def test_remote__a_clone_is_pushed_to_s3_grown_and_pushed_again(s3: str, real_plan: Plan, tmp_path: Path) -> None:
    out, url = tmp_path / "clone", f"{s3}/pushed"
    for rounds in (3, 8):
        make_clone(Plan(real_plan.recipe, rounds), str(out))
        push_to_url(str(out), url)
        assert contents(url) == local_contents(out)
    push_to_url(str(out), url)
    make_clone(Plan(replace(real_plan.recipe, seed=5), 2), str(tmp_path / "other"))
    with pytest.raises(UserError, match="holds a clone of another recipe"):
        push_to_url(str(tmp_path / "other"), url)
    open_storage(f"{s3}/thesis").write("thesis.tex", b"x")
    with pytest.raises(UserError, match=r"holds files but no clone \('thesis\.tex'\)"):
        push_to_url(str(out), f"{s3}/thesis")


class Killed(BaseException):
    pass


def test_remote__an_interrupted_push_has_a_whole_manifest_or_none_and_continues(
    real_plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies before each change to the store, in turn."""
    small, out = tmp_path / "small", tmp_path / "clone"
    make_clone(Plan(real_plan.recipe, 3), str(small))
    make_clone(Plan(real_plan.recipe, 5), str(shutil.copytree(small, out)))
    finished_at = None
    for stop in range(60):
        url = f"memory://cut-{os.getpid()}-{stop}"
        push_to_url(str(small), url)
        left = iter(range(stop))
        with monkeypatch.context() as patch:
            for name in ("write", "upload", "remove", "remove_folder"):
                real = getattr(RemoteStorage, name)

                def die(self: object, *arguments: object, real: object = real, left: Iterator[int] = left) -> object:
                    if next(left, None) is None:
                        raise Killed
                    return real(self, *arguments)  # type: ignore[operator]

                patch.setattr(RemoteStorage, name, die)
            try:
                push_to_url(str(out), url)
                finished_at = stop
            except Killed:
                seen = contents(url).get("clone.json")
                assert seen in (None, (small / "clone.json").read_bytes(), (out / "clone.json").read_bytes())
                if seen == (small / "clone.json").read_bytes():
                    assert local_contents(small).items() <= contents(url).items()
        push_to_url(str(out), url)
        assert contents(url) == local_contents(out)
        if finished_at is not None:
            break
    assert finished_at is not None and finished_at > 8
