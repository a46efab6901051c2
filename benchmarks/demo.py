"""Times `make demo` command by command, and measures the top-1 of its two networks over three seeds.

python -m benchmarks.demo [--as-processor avx2|oldest]

The time of the set-up is not counted. Seed 0 is the demo itself; the other seeds train again on its clones.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.acceptance.record import ROOT, record

SEEDS = (0, 1, 2)
RUNS = {"synthetic": "digits", "real": "real-train"}
COMMAND_LINE = re.compile(r"(?:\S+/)?(fakeit-build|fakeit-train|fakeit-eval|python)\s+(.*)")


def make_demo(folder: Path, processor: list[str]) -> tuple[float, list[tuple[str, float]]]:
    """Returns the seconds of `make demo` and of each of its commands, which make prints as it starts them."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [*processor, "make", "demo", f"DEMO={folder}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    started: list[tuple[str, float]] = []
    for line in process.stdout:
        sys.stdout.write(line)
        if found := COMMAND_LINE.match(line):
            started.append((f"{found[1]} {found[2]}".replace(f"{folder}/", ""), time.perf_counter()))
    if process.wait():
        raise SystemExit("make demo failed")
    ends = [start for _, start in started[1:]] + [time.perf_counter()]
    return time.perf_counter() - began, [(name, end - start) for (name, start), end in zip(started, ends, strict=True)]


def top1(folder: Path, run: str, seed: int, processor: list[str]) -> float:
    """Trains a network of the demo with a seed; returns its top-1 in % on the real test digits."""
    out = folder / f"run-{run}" if seed == 0 else folder / f"run-{run}-{seed}"
    commands = [
        [
            "fakeit_train",
            "digits",
            "--data",
            folder / RUNS[run],
            "--out",
            out,
            "--resume",
            "--set",
            f"data.seed={seed}",
        ],
        ["fakeit_eval", "test", out, "--data", folder / "real-test"],
    ]
    for command in commands:
        subprocess.run([*processor, sys.executable, "-m", *map(str, command)], check=True, cwd=ROOT)
    return float(json.loads(next((out / "results").glob("test-*.json")).read_text())["value"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--as-processor", default="native", choices=("native", "avx2", "oldest"))
    name = parser.parse_args().as_processor
    processor = [] if name == "native" else [str(ROOT / "tests" / "as_processor.sh"), name]
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "demo"
        seconds, commands = make_demo(folder, processor)
        scores = {run: [top1(folder, run, seed, processor) for seed in SEEDS] for run in RUNS}
    record(
        f"demo-{name}",
        f"`make demo` on processor '{name}'",
        [
            f"The demo takes {seconds:.0f} s after the set-up. Its commands in their order:",
            "",
            "| command | seconds |",
            "|---|---|",
            *(f"| `{command}` | {duration:.1f} |" for command, duration in commands),
            "",
            "Top-1 in % on the 597 real test digits, which the generator never saw: mean ± standard deviation of three",
            "seeds, then the value of each seed.",
            "",
            "| trained on | top-1 |",
            "|---|---|",
            *(
                f"| {run} | {statistics.mean(each):.2f} ± {statistics.stdev(each):.2f} "
                f"({', '.join(f'{value:.2f}' for value in each)}) |"
                for run, each in scores.items()
            ),
        ],
    )


if __name__ == "__main__":
    main()
