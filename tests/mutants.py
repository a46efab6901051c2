"""Checks that the tests notice a wrong sign, bound, condition or argument: each line of `mutants.tsv` is such a fault.

    .venv/bin/python -m tests.mutants              # all faults; or give the numbers of some, counted from 1

The script copies the tree, inserts one fault at a time, and runs the tests named beside it up to the first failure,
without those marked long. The tests must pass without the fault. A fault that no test notices survives; then the exit
status is 1.
"""

import csv
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "tests" / "mutants.tsv"
COPIED = ("fakeit_commands.py", "builders", "fakeit_train", "fakeit_eval", "tests", "docs", "pyproject.toml")


def read_table() -> list[dict[str, str]]:
    """Reads the faults: file, text, the wrong text, and the tests that should notice it."""
    with TABLE.open(encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def passes(tests: str, copy: Path) -> bool:
    options = ("-x", "-q", "-m", "not long", "-p", "no:cacheprovider")
    status = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests.split()], cwd=copy, capture_output=True
    ).returncode
    if status not in (0, 1):
        raise SystemExit(f"'{tests}' cannot be run (pytest ends with status {status}); correct its lines in {TABLE}")
    return status == 0


def is_killed(mutant: dict[str, str], copy: Path) -> bool:
    """Returns whether a test fails with the fault; restores the file in `copy` afterwards."""
    path = copy / mutant["file"]
    right = path.read_text(encoding="utf-8")
    if right.count(mutant["from"]) != 1:
        raise SystemExit(f"{mutant['file']} does not hold {mutant['from']!r} exactly once; correct the line in {TABLE}")
    path.write_text(right.replace(mutant["from"], mutant["to"]), encoding="utf-8")
    try:
        return not passes(mutant["tests"], copy)
    finally:
        path.write_text(right, encoding="utf-8")


def main() -> int:
    mutants = read_table()
    numbers = [int(number) for number in sys.argv[1:]] or range(1, len(mutants) + 1)
    num_survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in COPIED:
            source = ROOT / name
            copied = shutil.copytree if source.is_dir() else shutil.copy
            copied(source, Path(folder) / name)
        for tests in dict.fromkeys(mutants[number - 1]["tests"] for number in numbers):
            if not passes(tests, Path(folder)):
                raise SystemExit(f"'{tests}' fails without a fault; correct the code or the tests first")
        for number in numbers:
            mutant = mutants[number - 1]
            killed = is_killed(mutant, Path(folder))
            num_survivors += not killed
            verdict = "killed" if killed else "SURVIVES"
            sys.stdout.write(f"{number:3} {verdict:8} {mutant['file']}: {mutant['from']} -> {mutant['to']}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(numbers) - num_survivors} of {len(numbers)} killed\n")
    return 1 if num_survivors else 0


if __name__ == "__main__":
    sys.exit(main())
