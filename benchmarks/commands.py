"""Times commands that people wait for: help, lists, plans, and the status of a small clone.

python -m benchmarks.commands
"""

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.pairs import spread, time_in_turns
from tests.acceptance.record import record, run

NUM_ROUNDS = 5
COMMANDS = (
    "fakeit-build --help",
    "fakeit-train --help",
    "fakeit-eval --help",
    "fakeit-build list",
    "fakeit-build status CLONE",
    "fakeit-build plan imagenet_1k_sd/c_d_cfg2",
    "fakeit-build plan imagenet_1k_sd/c_h_inside_b_cfg2 --scale 50",
)


def call(command: str, clone: Path) -> None:
    program, *arguments = command.replace("CLONE", str(clone)).split()
    subprocess.run([Path(sys.executable).parent / program, *arguments], check=True, capture_output=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        clone = Path(scratch) / "clone"
        run("build", "make", "digits_sd/c_cfg2", clone, "--images-per-class", 5)
        seconds = time_in_turns({command: partial(call, command, clone) for command in COMMANDS}, NUM_ROUNDS)
    lines = ["| command | seconds |", "|---|---|"]
    lines += [f"| `{command}` | {spread(found)} |" for command, found in seconds.items()]
    record(
        "commands",
        "Seconds of commands that people wait for",
        [f"Median (range) over {NUM_ROUNDS} rounds, commands in turns.", "", *lines],
    )


if __name__ == "__main__":
    main()
