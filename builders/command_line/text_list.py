"""Reads text files that users write, with one item a line: classes, counts, keys, prompts.

Files of every system are accepted: UTF-8 with or without a byte order mark, UTF-16 and UTF-32 with one, and all line
ends. Empty lines and lines that begin with "#" are skipped.
"""

import codecs
import re
from dataclasses import dataclass
from pathlib import Path

from builders.errors import UserError

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte order marks. UTF-32 comes before UTF-16, because its little-endian mark begins with that of UTF-16."""
LINE_END = re.compile("\r\n|\r|\n")


@dataclass(frozen=True)
class Line:
    number: int
    """Line number in the file, from 1."""
    text: str
    """The line without surrounding white space."""


def read_list(path: str | Path, what: str = "a line for each item") -> list[Line]:
    """Returns the items of a text file. In error messages, `what` describes the expected content.

    Raises:
        UserError: the file cannot be read or has no items; the message names the line if one line is at fault.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror}); give a text file with {what}") from None
    return parse_list(content, path, what)


def parse_list(content: bytes, path: str | Path, what: str) -> list[Line]:
    """Returns the items of the content of a text file that comes from `path`.

    Raises:
        UserError: the file has no items, or is not text.
    """
    lines = [Line(number, text.strip(" \t\ufeff\xa0")) for number, text in enumerate(_lines(path, content), start=1)]
    found = [line for line in lines if line.text and not line.text.startswith("#")]
    if not found:
        raise UserError(f"'{path}' is empty; give it {what}")
    return found


def _lines(path: str | Path, content: bytes) -> list[str]:
    mark, encoding = next(((mark, name) for mark, name in MARKS if content.startswith(mark)), (b"", "utf-8"))
    try:
        lines = LINE_END.split(content[len(mark) :].decode(encoding))
    except UnicodeDecodeError as error:
        before = content[len(mark) :][: error.start].decode(encoding, "replace")
        number = len(LINE_END.split(before))
        raise UserError(
            f"'{path}', line {number}: byte 0x{error.object[error.start]:02x} is not {encoding.upper()}; save the file as UTF-8"
        ) from None
    odd = next((number for number, line in enumerate(lines, start=1) if "\0" in line), None)
    if odd is not None:
        raise UserError(f"'{path}', line {odd} contains a zero byte; save the file as text in UTF-8")
    return lines
