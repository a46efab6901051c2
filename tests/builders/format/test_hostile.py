"""Hostile input is rejected with a message, uses little memory, and changes nothing."""

import io
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.errors import UserError
from builders.format.manifest import Manifest, parse_manifest
from builders.format.open_clone import open_clone
from builders.format.tar_shard import read_members
from builders.images.read import decode_image
from builders.verification.verify_clone import verify_clone
from tests.builders.format.hostile import HOSTILE, UNTRUE, png, text_bomb, write

SHARD = "data/000/test-000001.tar"


def test_hostile__there_are_at_least_40_cases() -> None:
    assert len(HOSTILE) + len(UNTRUE) >= 40


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile__tars_are_rejected_with_a_message(name: str, clone: Path) -> None:
    write(clone / SHARD, HOSTILE[name], ended="cut" not in name)
    with pytest.raises(ValueError, match=r"member .* (is|has)|the tar (cannot|is cut)") as message:
        list(read_members(io.BytesIO((clone / SHARD).read_bytes())))
    assert "\x1b" not in str(message.value)
    assert any(fault.where == SHARD and not fault.key for fault in verify_clone(str(clone)))


@pytest.mark.parametrize("name", UNTRUE)
def test_hostile__invalid_samples_are_reported_with_their_shard(name: str, clone: Path) -> None:
    write(clone / SHARD, UNTRUE[name])
    faults = list(verify_clone(str(clone), deep=True))
    assert any(fault.where == SHARD and fault.key in ("a", "n01_00000001") for fault in faults)


def test_hostile__memory_stays_bounded(clone: Path) -> None:
    """Reads every tar, extended with a hole to 20 GB, in a process with limited memory."""
    script = """
import resource, sys
from pathlib import Path
from builders.format.tar_shard import read_members
from builders.verification.verify_clone import verify_clone
from tests.builders.format.hostile import HOSTILE, UNTRUE, write
clone, shard = Path(sys.argv[1]), Path(sys.argv[1]) / sys.argv[2]
whole = shard.read_bytes()
list(verify_clone(str(clone), deep=True))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 700_000_000,) * 2)
for tail in (HOSTILE | UNTRUE).values():
    shard.write_bytes(whole)
    write(shard, tail)
    with shard.open("r+b") as file:
        file.truncate(20_000_000_000)
    with shard.open("rb") as file:
        try:
            for member in read_members(file):
                pass
        except ValueError:
            pass
print("bounded")
"""
    ended = subprocess.run([sys.executable, "-c", script, str(clone), SHARD], capture_output=True, text=True)
    assert ended.stdout == "bounded\n", ended.stderr


@pytest.mark.parametrize("content", [png(65_000, 65_000), png(0, 0), text_bomb(), b"GIF89a" + bytes(99), b"%!PS", b""])
def test_hostile__images_are_rejected(content: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"image|pixels"):
        decode_image(content)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


CHANGES: list[tuple[str, Any]] = [
    ("shards.0.name", "../../../etc/passwd"), ("shards.0.name", "/etc/passwd"), ("shards.0.name", "data/../../x"),
    ("shards.0.name", "http://evil/x.tar"), ("shards.0.name", ""), ("shards.0.name", None), ("metadata.0.sha256", 3),
    ("shards.0.name", "data/\u202e.tar"),
    ("shards.0.sha256", "../../../../tmp/x"), ("shards.0.sha256", "a" * 63), ("shards.0.num_bytes", -1),
    ("shards.0.num_bytes", 1 << 62), ("shards.0.num_samples", -5), ("shards.0.num_samples", 1.5), ("shards.0.environment", 9),
    ("shards", {}), ("shards", 3), ("metadata", []), ("metadata.0.name", "../x"), ("label_names", [1]), ("label_names", 7),
    ("recipe", []), ("recipe", {"name": 1, "engine": 2}), ("num_rounds", "many"),
    ("format", 1), ("format", 3), ("format", None), ("digest", "x"),
    ("num_samples", 10**30), ("shards.0.verdicts", {"flagged": {"a": "x"}}),
    ("shards.0.verdicts", {"broken": 3}), ("shards.0.execution", 7), ("executions", []),
    ("executions", [3]), ("is_synthetic", 1),
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: f"{change[0]}={str(change[1])[:20]}")
def test_hostile__manifests_are_rejected(change: tuple[str, Any], clone: Path) -> None:
    content = json.loads((clone / "clone.json").read_text())
    where, *names = content, *change[0].split(".")
    for name in names[:-1]:
        where = where[int(name)] if isinstance(where, list) else where[name]
    where[names[-1]] = change[1]
    with pytest.raises(UserError):
        parse_manifest(json.dumps(content).encode(), "clone.json")
    with pytest.raises(UserError):
        parse_manifest(b"[" * 100_000, "clone.json")


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_hostile__fuzzed_tars_give_members_or_a_message(data: st.DataObject, finished: tuple[Path, Manifest]) -> None:
    content = bytearray((finished[0] / SHARD).read_bytes()[:6000])
    for where in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        content[where] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    try:
        for member in read_members(io.BytesIO(bytes(content[:cut]))):
            assert member.extension in ("jpg", "png", "webp", "cls", "json") and "/" not in member.key
    except ValueError as error:
        assert str(error)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_hostile__fuzzed_manifests_are_parsed_or_rejected(data: st.DataObject, finished: tuple[Path, Manifest]) -> None:
    content = json.loads((finished[0] / "clone.json").read_text())
    where: Any = content
    while isinstance(where, (dict, list)) and where:
        name = data.draw(st.sampled_from(sorted(where) if isinstance(where, dict) else range(len(where))))
        if not isinstance(where[name], (dict, list)) or not where[name] or data.draw(st.booleans()):
            where[name] = data.draw(JSON_VALUES)
            break
        where = where[name]
    try:
        manifest = parse_manifest(json.dumps(content).encode(), "clone.json")
        assert all(shard.name.startswith("data/") for shard in manifest.shards)
    except UserError as error:
        assert "\n" not in str(error)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_hostile__fuzzed_metadata_gives_samples_or_a_message(
    data: st.DataObject, finished: tuple[Path, Manifest], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("fuzzed")
    for name in ("clone.json", "data"):
        (folder / name).symlink_to(finished[0] / name)
    (folder / "metadata").mkdir()
    content = bytearray((finished[0] / "metadata/test-00000.parquet").read_bytes())
    for where in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8)):
        content[where] = data.draw(st.integers(0, 255))
    (folder / "metadata/test-00000.parquet").write_bytes(bytes(content))
    clone = open_clone(folder)
    try:
        for number in range(0, len(clone), 7):
            assert isinstance(clone[number].image, bytes)
    except UserError as error:
        assert "verify" in str(error)
