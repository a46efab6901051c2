from collections.abc import Sequence
from pathlib import Path

import pytest

from builders.cli.main import main
from tests.in_process import call

ROWS = [
    ("zero", "a photo of zero", "1", ""), ("one", "one", "", ""), ("two", "two", "", ""), ("three", "three", "", ""),
    ("four", "four", "", ""), ("five", "five", "", ""), ("six", "six", "", ""), ("seven", "seven", "", ""),
    ("eight", "eight", "", ""), ("nine", "nine", "", ""),
]  # fmt: skip
FAULTS = {
    "no prompt": (("nine", "", "", ""), "row 10: it has no text"),
    "missing class": (("eight", "nine", "", ""), "1 of 10 classes have no prompt: n13745270"),
    "unknown class": (("ten", "ten", "", ""), "rows of 1 classes that the recipe does not have are left out: ten"),
    "cut": (
        ("nine", "nine " * 80, "", ""),
        "row 10: it has up to 82 tokens, and the text encoder of the model reads 77",
    ),
    "duplicate": (("zero", "a  photo of zero", "", ""), "row 10: its text is that of row 1"),
    "negative weight": (("nine", "nine", "-1", ""), "row 10: its weight is -1"),
    "NaN": (("nine", "nine", "nan", ""), "row 10: its weight is nan"),
    "letters": (("nine", "n" * 10_001, "", ""), "row 10: its text has 10,001 letters"),
    "field": (("nine", "a photo of {lemma}", "", ""), "row 10: {lemma} stays as it is"),
    "skipped": (("nine", "nine", "", "true"), "1 of 10 classes have no prompt: n13745270"),
}


def lint(path: Path, rows: Sequence[tuple[str, ...]]) -> tuple[int, str]:
    path.write_text("class,text,weight,skip\n" + "".join(",".join(row) + "\n" for row in rows))
    ended = call(main, "prompts", "lint", path, "digits_sd/c_cfg2")
    return ended.returncode, ended.stdout


def test_lint__a_good_file_has_no_faults(tmp_path: Path) -> None:
    assert lint(tmp_path / "a.csv", ROWS) == (0, f"{tmp_path / 'a.csv'}: no faults\n")


@pytest.mark.parametrize("name", FAULTS)
def test_lint__each_planted_fault_is_found(name: str, tmp_path: Path) -> None:
    row, expected = FAULTS[name]
    status, printed = lint(tmp_path / "a.csv", [*ROWS[:9], row])
    assert status == 1 and any(line.startswith(expected) for line in printed.splitlines()), printed


def test_lint__all_faults_at_once_and_templates(tmp_path: Path) -> None:
    rows = [row for row, _ in FAULTS.values()]
    status, printed = lint(tmp_path / "a.csv", [*ROWS, *rows])
    assert status == 1 and len(printed.splitlines()) >= 8
    (tmp_path / "t.txt").write_text("{c}\n{c}\n{q}\n{c}" + " inside {b}" * 30 + "\n")
    ended = call(main, "prompts", "lint", tmp_path / "t.txt", "digits_sd/c_cfg2")
    for expected in ("row 2: its text is that of row 1", "row 3: unknown prompt field {q}", "row 4: it has up to"):
        assert expected in ended.stdout
