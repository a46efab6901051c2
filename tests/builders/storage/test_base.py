from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from builders.errors import UserError
from builders.storage.base import Storage, open_storage
from builders.storage.remote import RemoteStorage


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return open_storage(tmp_path / "root" if request.param == "local" else f"memory://{tmp_path.name}")


def test_base__written_files_are_read_back(storage: Storage) -> None:
    storage.write("a/b/c.txt", b"0123456789")
    assert storage.exists("a/b/c.txt") and not storage.exists("a/b/d.txt")
    assert storage.size("a/b/c.txt") == 10
    assert storage.read("a/b/c.txt") == b"0123456789"
    assert storage.read("a/b/c.txt", 2, 5) == b"234"
    assert storage.names("a") == ["a/b/c.txt"] and storage.names("x") == []


def test_base__finished_files_are_put_moved_and_removed(storage: Storage) -> None:
    scratch = storage.scratch("a/shard.tar")
    scratch.write_bytes(b"tar")
    assert storage.names("") in ([], [scratch.relative_to(storage.root).as_posix()] if storage.is_local else [])
    storage.put(scratch, "a/shard.tar")
    storage.move("a/shard.tar", "data/000/shard.tar")
    assert storage.names("") == ["data/000/shard.tar"] and not scratch.exists()
    storage.remove("data/000/shard.tar")
    storage.remove("data/000/shard.tar")
    storage.remove_folder("nothing")
    assert storage.names("") == []


def test_base__a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    storage.write("a", b"old")
    with pytest.raises(TypeError):
        storage.write("a", "no bytes")  # type: ignore[arg-type]
    assert storage.read("a") == b"old" and storage.names("") == ["a"]


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x"])
def test_base__names_that_lead_out_are_rejected(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="leads out"):
        open_storage(tmp_path).read(name)


def test_base__unknown_protocols_and_unwritable_folders_are_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nosuch"):
        open_storage("nosuch://x")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write to"):
        open_storage(tmp_path / "file").write("a", b"")


def test_base__each_thread_has_its_own_client_of_the_hub() -> None:
    storage = RemoteStorage("hf://buckets/user/clones")
    with ThreadPoolExecutor(1) as pool:
        other = [pool.submit(lambda: storage.fs).result() for _ in range(2)]
    assert storage.fs is storage.fs is not other[0] and other[0] is other[1]
