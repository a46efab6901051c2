"""Times `plan` for 65 million images: first, last and random samples, with equal and unequal class counts.

python -m tests.acceptance.accept_plan
"""

import os
import random
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from builders.classes.imagenet import read_parents
from tests.acceptance.record import ROOT, command, record

RECIPE = "imagenet_1k_sd/c_h_inside_b_cfg2"
REPEATS = 5


def call(*options: object) -> tuple[float, float, str]:
    """Runs `plan` in a fresh process; returns its seconds (imports included), peak MB and output."""
    before = time.perf_counter()
    child = subprocess.Popen(command("build", "plan", RECIPE, *options), stdout=subprocess.PIPE, text=True, cwd=ROOT)
    output = child.stdout.read() if child.stdout else ""
    _, status, usage = os.wait4(child.pid, 0)
    assert status == 0
    return time.perf_counter() - before, usage.ru_maxrss / 1024, output


def main() -> None:
    rng = random.Random(0)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        counts = Path(folder) / "counts.csv"
        counts.write_text("".join(f"{wnid},{rng.randint(732, 1300)}\n" for wnid in read_parents()))
        first = next(iter(read_parents()))
        counts.write_text(counts.read_text().replace(counts.read_text().split("\n")[0], f"{first},1300", 1))
        for title, options in (("equal", ()), ("732 to 1300", ("--counts", counts))):
            head = call("--scale", 50, *options, "--limit", 1)[2].splitlines()[0]
            total = int(head.split(": ")[1].split(" ")[0].replace(",", ""))
            positions = [0, total - 1, *(rng.randrange(total) for _ in range(8))]
            runs = [call("--scale", 50, *options, "--at", *positions) for _ in range(REPEATS)]
            assert len({run[2] for run in runs}) == 1
            rows_shown = [line for line in runs[0][2].splitlines() if line.split()[0].replace(",", "").isdecimal()]
            assert len(rows_shown) == len(positions)
            seconds, megabytes = [run[0] for run in runs], [run[1] for run in runs]
            rows.append(
                f"| {title} | {total:,} | {statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f}) | "
                f"{max(megabytes):.0f} |"
            )
            assert max(seconds) < 5 and max(megabytes) < 400, rows
    lines = [
        f"`plan {RECIPE} --scale 50 --at 0 LAST …` (ten positions, eight of them random),",
        f"{REPEATS} fresh processes per row.",
        "",
        "| images per class in the 1x clone | images | seconds, imports included: median (range) | peak MB |",
        "|---|---|---|---|",
        *rows,
    ]
    record("plan", "Looking up any of 65 million planned samples", lines)


if __name__ == "__main__":
    main()
