import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from builders.format.tar_shard import ShardWriter, read_members


def write(path: Path) -> tuple[list[dict[str, Any]], str]:
    writer = ShardWriter(path, "jpg")
    for number in range(5):
        writer.write(f"n01_{number:08d}", number, b"content" * (number * 100 + 1), {"prompt": "ü", "index": number})
    return writer.close()


def test_tar_shard__same_samples_same_bytes(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    assert first == second
    assert hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest() == first[1]


def test_tar_shard__recorded_offsets_are_where_the_members_are(tmp_path: Path) -> None:
    rows, _ = write(tmp_path / "a.tar")
    content = (tmp_path / "a.tar").read_bytes()
    for row in rows:
        image = content[row["image_offset"] : row["image_offset"] + row["image_size"]]
        assert hashlib.sha256(image).hexdigest() == row["sha256"]
        assert json.loads(content[row["json_offset"] : row["json_offset"] + row["json_size"]])["prompt"] == "ü"


def test_tar_shard__tarfile_reads_a_shard(tmp_path: Path) -> None:
    write(tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert tar.getnames()[:3] == ["n01_00000000.cls", "n01_00000000.jpg", "n01_00000000.json"]
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in tar} == {(0, 0, 0, "", "")}


def test_tar_shard__members_are_read_at_their_offsets(tmp_path: Path) -> None:
    rows, _ = write(tmp_path / "a.tar")
    with (tmp_path / "a.tar").open("rb") as file:
        members = list(read_members(file))
    assert [m.offset for m in members if m.extension == "jpg"] == [row["image_offset"] for row in rows]


@pytest.mark.parametrize("cut", [700, 1536, 512 * 9, 512 * 12 + 3])
def test_tar_shard__a_cut_tar_is_an_error(tmp_path: Path, cut: int) -> None:
    write(tmp_path / "a.tar")
    with pytest.raises(ValueError, match=r"cut|read"):
        list(read_members(io.BytesIO((tmp_path / "a.tar").read_bytes()[:cut])))


def hostile(name: str, kind: bytes = tarfile.REGTYPE) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member, io.BytesIO())
    return io.BytesIO(buffer.getvalue())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jpg", tarfile.SYMTYPE),
        ("a.jpg", tarfile.LNKTYPE),
        ("a.jpg", tarfile.DIRTYPE),
        ("a.jpg", tarfile.FIFOTYPE),
        ("a.pkl", tarfile.REGTYPE),
        ("a.pyd", tarfile.REGTYPE),
        ("a", tarfile.REGTYPE),
    ],
)
def test_tar_shard__only_plain_members_of_known_kinds_are_read(name: str, kind: bytes) -> None:
    with pytest.raises(ValueError, match="member"):
        list(read_members(hostile(name, kind)))
