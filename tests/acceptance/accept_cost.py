"""Foretells the time of runs from a preview of 20 images, and compares it with the runs.

python -m tests.acceptance.accept_cost     # about ten minutes
"""

import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tests.acceptance.record import command, record

RECIPE = "digits_sd/c_cfg2"
STEPS, LENGTHS = (4, 25), (50, 200)
MOST = 0.15


def run_in(folder: Path, *arguments: object) -> str:
    return subprocess.run(command("build", *arguments), check=True, text=True, capture_output=True, cwd=folder).stdout


def main() -> None:
    rows, errors = [], []
    folder = Path(tempfile.mkdtemp())
    try:
        for num_steps in STEPS:
            options = ("--num-inference-steps", num_steps, "--batch-size", 5)
            run_in(folder, "make", RECIPE, "unused", *options, "--preview", 20)
            for per_class in LENGTHS:
                length = ("--images-per-class", per_class)
                planned = run_in(folder, "plan", RECIPE, *options, *length, "--cost", "--measured", "preview.json")
                found = re.search(r"one worker: ([\d.]+) (s|min|h) for", planned)
                assert found, planned
                foretold = float(found[1]) * {"s": 1, "min": 60, "h": 3600}[found[2]]
                begun = time.perf_counter()
                run_in(folder, "make", RECIPE, f"out-{num_steps}-{per_class}", *options, *length)
                seconds = time.perf_counter() - begun
                errors.append(foretold / seconds - 1)
                rows.append(
                    f"| {num_steps} | {10 * per_class:,} | {foretold:.0f} s | {seconds:.0f} s | {errors[-1]:+.1%} |"
                )
                print(rows[-1], flush=True)
    finally:
        shutil.rmtree(folder)
    is_met = all(abs(error) <= MOST for error in errors)
    record("cost", "The time of a run, foretold by a preview", [
        "`python -m tests.acceptance.accept_cost`.",
        "",
        f"`make {RECIPE} … --preview 20`, then `plan --cost --measured preview.json`, then the run itself: the whole command,",
        "with its start, on one worker in batches of 5.",
        "",
        "| steps | images | foretold | measured | difference |",
        "|---|---|---|---|---|",
        *rows,
        "",
        f"- every difference is at most {MOST:.0%}: **{is_met}**",
    ])  # fmt: skip
    assert is_met


if __name__ == "__main__":
    main()
