"""Tests of how errors of libraries are quoted in our messages."""

import pytest

from builders.errors import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [(OSError(" no such file.\nand more"), "no such file"), (ValueError(), "ValueError"), (KeyError("a"), "'a'")],
)
def test_errors__a_quote_is_the_first_line_or_the_type(error: Exception, line: str) -> None:
    assert first_line(error) == line
