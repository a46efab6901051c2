"""Times loading from shards to batches of crops by two processes: ours, and webdataset with Pillow and torchvision.

python -m benchmarks.loader [--data CLONE]

Arms run in turns, each alone in its process.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.pairs import call_alone, in_turns, ratios, spread
from benchmarks.stream import NUM_CLASSES, SIZE, write_images
from builders.classes.class_options import ClassOptions
from builders.format.open_clone import open_clone
from builders.make_clone import make_clone
from builders.planning.plan import Plan
from builders.real_images import RealImages
from tests.acceptance.record import record

ARMS = "loader_arms.py"
NUM_ROUNDS = 3
NUM_BATCHES = 24
NUM_IMAGES, SHARD_SIZE = 2000, 250
LONG = 20_000
"""Number of images over which memory is recorded."""
LABELS = {
    "ours": "ours",
    "webdataset": "webdataset, crops by Pillow and torchvision",
}
SHARES = (0.5, 0.8, 0.95)
"""Rates at which batches are consumed, as fractions of the loader's own rate."""


def make_data(work: Path) -> Path:
    write_images(work / "images", None, NUM_IMAGES)
    recipe = RealImages.recipe("train", ClassOptions(source=str(work / "images")), shard_size=SHARD_SIZE)
    make_clone(Plan(recipe, NUM_IMAGES // NUM_CLASSES), str(work / "clone"))
    return work / "clone"


def memory_lines(message: dict[str, Any]) -> list[str]:
    at = " | ".join(f"{images:,}" for images, _ in message["memory"])
    held = " | ".join(f"{gib:.2f}" for _, gib in message["memory"])
    return [f"| images | {at} |", "|---" * (len(message["memory"]) + 1) + "|", f"| GiB, all processes | {held} |"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="clone on this machine's disk; by default one of photographs is made")
    requested = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = requested.data or make_data(Path(folder))
        num_samples = len(open_clone(data))
        found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in LABELS}
        for number, arm in in_turns(LABELS, NUM_ROUNDS):
            message = call_alone(sys.executable, ARMS, arm, data, NUM_BATCHES)
            if number:
                found[arm].append(message)
            print(f"round {number}: {arm} {json.dumps(message)}", flush=True)
        own = min(message["rate"] for message in found["ours"])
        waits = {share: call_alone(sys.executable, ARMS, "waiting", data, NUM_BATCHES, share * own) for share in SHARES}
        long = call_alone(sys.executable, ARMS, "memory", data, LONG)
    rates = {arm: [message["rate"] for message in each] for arm, each in found.items()}
    record("loader", "From shards to batches of crops", [
        f"{num_samples:,} JPEGs" + (f" of {SIZE[0]}×{SIZE[1]} pixels" if not requested.data else "") + ", 1 + 8 crops an image "
        "(`imagenet_100_sd`), batches of 64, two loader processes,",
        f"{NUM_BATCHES} batches after four warm-up batches. Median (range) over {NUM_ROUNDS} rounds, arms in turns;",
        "ratios are taken within a round.",
        "",
        "| loader | images/s | images/s of ours / of this loader |",
        "|---|---|---|",
        *(
            f"| {LABELS[arm]} | {spread(rates[arm], 0)} | "
            f"{'1' if arm == 'ours' else spread(ratios(rates['ours'], rates[arm]))} |"
            for arm in LABELS
        ),
        "",
        "Waiting time for a batch in ms, if training consumes batches at a fraction of the rate of the slowest round:",
        "",
        "| fraction of the rate | median | 95th percentile | maximum | fraction of the time |",
        "|---|---|---|---|---|",
        *(
            f"| {share:.0%} | {w['median']:.1f} | {w['most_of_them']:.1f} | {w['most']:.1f} | {w['share']:.1%} |"
            for share, w in waits.items()
        ),
        "",
        f"Memory over {LONG:,} images (PSS, which counts memory shared by processes once):",
        "",
        *memory_lines(long),
    ])  # fmt: skip


if __name__ == "__main__":
    main()
