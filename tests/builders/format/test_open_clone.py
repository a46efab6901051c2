import hashlib
import pickle
import shutil
from pathlib import Path

import fsspec
import pytest

from builders.errors import UserError
from builders.format.manifest import Manifest
from builders.format.open_clone import open_clone
from builders.planning.plan import Plan


def test_open_clone__samples_are_those_of_the_plan(finished: tuple[Path, Manifest], real_plan: Plan) -> None:
    clone = open_clone(finished[0])
    planned = [real_plan.sample_at(position) for position in range(real_plan.num_samples)]
    assert [(s.key, s.label) for s in clone] == [(s.key, s.label) for s in planned]
    assert clone.key(len(clone) - 1) == planned[-1].key


def test_open_clone__images_have_the_hashes_of_the_metadata(finished: tuple[Path, Manifest]) -> None:
    clone = open_clone(finished[0])
    for shard in range(len(clone.manifest.shards)):
        hashes = clone.metadata(shard, ["sha256"])["sha256"].to_pylist()
        start = clone.shard_starts[shard]
        assert hashes == [hashlib.sha256(clone[start + row].image).hexdigest() for row in range(len(hashes))]


def test_open_clone__any_fsspec_store_gives_the_same_samples(finished: tuple[Path, Manifest]) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(finished[0]), "/clone-in-memory", recursive=True)
    local, remote = open_clone(finished[0]), open_clone("memory://clone-in-memory")
    assert [remote[number] for number in (0, 33, 61)] == [local[number] for number in (0, 33, 61)]


def test_open_clone__pickles_without_what_it_has_read(finished: tuple[Path, Manifest]) -> None:
    clone = open_clone(finished[0])
    fresh = pickle.dumps(clone)
    _ = clone[0]
    sent = pickle.dumps(clone)
    assert len(sent) == len(fresh) and pickle.loads(sent)[7] == clone[7]


def test_open_clone__numbers_out_of_range_raise(finished: tuple[Path, Manifest]) -> None:
    clone = open_clone(finished[0])
    for number in (-1, len(clone)):
        with pytest.raises(IndexError):
            _ = clone[number]


def test_open_clone__damage_is_reported(clone: Path) -> None:
    shard = next((clone / "data/000").glob("*.tar"))
    shard.write_bytes(shard.read_bytes()[:1500])
    with pytest.raises(UserError, match="is cut"):
        list(open_clone(clone))
    shutil.rmtree(clone / "metadata")
    with pytest.raises(UserError, match=r"metadata.*verify"):
        _ = open_clone(clone)[0]
