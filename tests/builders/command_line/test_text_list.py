import codecs
from pathlib import Path

import pytest

from builders.command_line.text_list import Line, read_list
from builders.errors import UserError

TEXT = "# cats\n\n Katze \nØrsted\t a\n"
ITEMS = [Line(3, "Katze"), Line(4, "Ørsted\t a")]
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_text_list__files_of_every_system_are_read(tmp_path: Path, encoding: str, end: str) -> None:
    (tmp_path / "list.txt").write_bytes(TEXT.replace("\n", end).encode(encoding))
    assert read_list(tmp_path / "list.txt") == ITEMS


def test_text_list__big_endian_and_repeated_marks_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"))
    assert read_list(path) == ITEMS
    path.write_bytes(b"a\n" + "b\n".encode("utf-8-sig") + "c\u2028d".encode())
    assert [line.text for line in read_list(path)] == ["a", "b", "c\u2028d"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a\nØ\n".encode("latin-1"), "line 2: byte 0xd8 is not UTF-8"),
        ("a\nb".encode("utf-16-le"), "line 1 contains a zero byte"),
        (codecs.BOM_UTF16_LE + b"a\0\n\0\x00\xd8", "line 2: byte 0x00 is not UTF-16-LE"),
        (b"# only this\n\n", "is empty; give it a line for each class"),
    ],
)
def test_text_list__an_unreadable_line_is_reported_with_its_number(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_list(tmp_path / "list.txt", "a line for each class")
    with pytest.raises(UserError, match="cannot be read"):
        read_list(tmp_path)
