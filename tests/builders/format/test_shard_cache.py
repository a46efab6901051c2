import hashlib
import multiprocessing as mp
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builders.errors import UnreachableError, UserError
from builders.format.manifest import FileEntry
from builders.format.shard_cache import ShardCache
from builders.storage.base import open_storage
from tests.loopback.files import FileServer
from tests.loopback.server import Fault, running

SIZE = 10_000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    """Serves twelve files of ten thousand bytes over HTTP."""
    root = tmp_path / "served"
    (root / "data").mkdir(parents=True)
    for number in range(12):
        (root / "data" / f"{number}.tar").write_bytes(random.Random(number).randbytes(SIZE))
    with running(FileServer(root)) as found:
        yield found


def entry(server: FileServer, number: int) -> FileEntry:
    content = (server.root / "data" / f"{number}.tar").read_bytes()
    return FileEntry(name=f"data/{number}.tar", num_bytes=SIZE, sha256=hashlib.sha256(content).hexdigest())


def gets(server: FileServer) -> dict[str, int]:
    return {name: count for name, count in server.traffic.requests.items() if name.startswith("GET")}


def test_shard_cache__a_file_is_fetched_once_and_read_at_any_offset(server: FileServer, tmp_path: Path) -> None:
    cache, storage = ShardCache(tmp_path / "cache", 10 * SIZE), open_storage(server.url)
    content = (server.root / "data/3.tar").read_bytes()
    for start, end in ((0, SIZE), (17, 400), (9990, SIZE)):
        assert cache.read(storage, entry(server, 3), start, end) == content[start:end]
    assert gets(server) == {"GET /data/3.tar": 1}


def test_shard_cache__the_least_recently_used_file_is_evicted_first(server: FileServer, tmp_path: Path) -> None:
    cache, storage = ShardCache(tmp_path / "cache", 3 * SIZE, seconds_in_use=0), open_storage(server.url)
    for number in (0, 1, 2, 0, 3):
        cache.read(storage, entry(server, number), 0, 5)
        time.sleep(0.01)
        assert cache.num_bytes() <= 3 * SIZE
    assert [cache.has(entry(server, number)) for number in range(4)] == [True, False, True, True]


def test_shard_cache__nothing_is_fetched_if_files_in_use_take_all_room(server: FileServer, tmp_path: Path) -> None:
    cache, storage = ShardCache(tmp_path / "cache", 2 * SIZE), open_storage(server.url)
    assert [cache.fetch(storage, entry(server, number)) for number in range(4)] == [True, True, False, False]
    assert cache.read(storage, entry(server, 2), 0, 5) is None
    assert len(gets(server)) == 2 and cache.num_bytes() == 2 * SIZE
    assert ShardCache(tmp_path / "small", SIZE - 1).read(storage, entry(server, 1), 0, 5) is None


def test_shard_cache__a_corrupted_download_is_fetched_once_more_and_then_reported(
    server: FileServer, tmp_path: Path
) -> None:
    cache, storage = ShardCache(tmp_path / "cache", 9 * SIZE), open_storage(server.url)
    faults = [Fault(corrupt=True)]
    server.traffic.choose = lambda method, path: faults.pop() if faults and "tar" in path and method == "GET" else None
    assert cache.read(storage, entry(server, 1), 0, SIZE) == (server.root / "data/1.tar").read_bytes()
    server.traffic.choose = lambda method, path: Fault(corrupt=True)
    with pytest.raises(UserError, match=r"/data/2\.tar was fetched twice and has sha256 .*, but clone\.json says"):
        cache.read(storage, entry(server, 2), 0, 5)
    assert cache.num_bytes() == SIZE


def test_shard_cache__dropped_and_failing_requests_are_retried(server: FileServer, tmp_path: Path) -> None:
    faults = [Fault(status=503), Fault(drop_after=4000), Fault(drop_after=0), Fault(status=429)]
    server.traffic.choose = lambda method, path: faults.pop() if faults else None
    read = ShardCache(tmp_path / "cache", 9 * SIZE).read(open_storage(server.url), entry(server, 1), 0, SIZE)
    assert read == (server.root / "data/1.tar").read_bytes() and not faults


def test_shard_cache__a_server_that_always_fails_is_reported(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builders.storage.retry._wait", lambda state: 0.0)
    server.traffic.choose = lambda method, path: Fault(status=503)
    with pytest.raises(UnreachableError, match=r"/data/1\.tar: every attempt failed, the last one with .*503"):
        ShardCache(tmp_path / "cache", 9 * SIZE).read(open_storage(server.url), entry(server, 1), 0, SIZE)
    server.traffic.choose = lambda method, path: None
    gone = FileEntry(name="data/99.tar", num_bytes=5, sha256="0" * 64)
    with pytest.raises(UserError, match=r"/data/99\.tar is not there"):
        ShardCache(tmp_path / "cache", 9 * SIZE).read(open_storage(server.url), gone, 0, 5)


def _read_all(
    url: str, folder: Path, entries: list[FileEntry], max_bytes: int, seed: int, found: "mp.Queue[str]"
) -> None:
    cache, storage = ShardCache(folder, max_bytes, seconds_in_use=0), open_storage(url)
    contents = [cache.read(storage, e, 0, SIZE) for e in random.Random(seed).sample(entries, len(entries))]
    found.put(",".join("-" if c is None else hashlib.sha256(c).hexdigest() for c in contents))


@pytest.mark.parametrize("num_files", [12, 3])
def test_shard_cache__processes_share_files_and_never_exceed_the_bound(
    server: FileServer, tmp_path: Path, num_files: int
) -> None:
    folder, entries, most = tmp_path / "cache", [entry(server, number) for number in range(12)], 0
    context = mp.get_context("spawn")
    found: mp.Queue[str] = context.Queue()
    arguments = [(server.url, folder, entries, num_files * SIZE, seed, found) for seed in range(3)]
    processes = [context.Process(target=_read_all, args=a) for a in arguments]
    for process in processes:
        process.start()
    watch = ShardCache(folder, num_files * SIZE)
    while any(process.is_alive() for process in processes):
        most = max(most, watch.num_bytes() if folder.is_dir() else 0)
    expected, got = {e.sha256 for e in entries}, [found.get().split(",") for _ in processes]
    assert all(set(digests) <= expected | {"-"} and len(digests) == 12 for digests in got)
    assert most <= num_files * SIZE
    if num_files == 12:
        assert all(set(digests) == expected for digests in got)
        assert set(gets(server).values()) == {1}


def test_shard_cache__without_wait_a_file_that_another_thread_fetches_is_skipped(
    server: FileServer, tmp_path: Path
) -> None:
    cache, storage = ShardCache(tmp_path / "cache", 9 * SIZE), open_storage(server.url)
    server.traffic.choose = lambda method, path: Fault(stall=0.5)
    thread = threading.Thread(target=cache.fetch, args=(storage, entry(server, 1)))
    thread.start()
    while not gets(server):
        time.sleep(0.01)
    assert not cache.fetch(storage, entry(server, 1), wait=False)
    thread.join()
    assert cache.fetch(storage, entry(server, 1), wait=False)


def test_shard_cache__partial_files_of_killed_processes_are_deleted(server: FileServer, tmp_path: Path) -> None:
    """Two partial files are left over, one of a file that is requested now; a third file is being fetched and stays."""
    cache, storage = ShardCache(tmp_path / "cache", 3 * SIZE), open_storage(server.url)
    cache.fetch(storage, entry(server, 0))
    for sha256 in ("ab" * 32, entry(server, 1).sha256):
        (tmp_path / "cache" / f"{sha256}.part").write_bytes(bytes(SIZE))
    server.traffic.choose = lambda method, path: Fault(stall=0.5) if path.endswith("2.tar") else None
    thread = threading.Thread(target=cache.fetch, args=(storage, entry(server, 2)))
    thread.start()
    while "GET /data/2.tar" not in gets(server):
        time.sleep(0.01)
    assert cache.fetch(storage, entry(server, 1)) and cache.num_bytes() == 3 * SIZE
    thread.join()
    assert cache.has(entry(server, 2)) and not list((tmp_path / "cache").glob("*.part"))


def test_shard_cache__a_file_cut_by_a_crash_is_fetched_again(server: FileServer, tmp_path: Path) -> None:
    cache, storage = ShardCache(tmp_path / "cache", 3 * SIZE), open_storage(server.url)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / entry(server, 1).sha256).write_bytes(bytes(70))
    assert cache.read(storage, entry(server, 1), 0, SIZE) == (server.root / "data/1.tar").read_bytes()


def test_shard_cache__other_files_in_the_folder_are_never_touched(server: FileServer, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "thesis.tex").write_bytes(bytes(9 * SIZE))
    cache = ShardCache(folder, SIZE, seconds_in_use=0)
    for number in (0, 1):
        assert cache.fetch(open_storage(server.url), entry(server, number))
    assert (folder / "thesis.tex").stat().st_size == 9 * SIZE and cache.num_bytes() == SIZE


def test_shard_cache__an_unwritable_folder_is_reported(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write to the cache .*: (Not a directory|File exists); choose another"):
        ShardCache(tmp_path / "file", SIZE).fetch(open_storage(server.url), entry(server, 1))
