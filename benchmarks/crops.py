"""DINO's 1 + 8 crops from JPEGs to a batch that is ready for the device, on one core: ours beside the Pillow and torchvision
composition and other libraries; all arms in one run, in turns, each alone in its process.

python -m benchmarks.crops [--images DIR] [--peers PYTHON]

PEERS is the Python of an environment with albumentations 2.0.8, kornia and DALI:
uv venv peers && uv pip install --python peers/bin/python albumentations==2.0.8 kornia torchvision nvidia-dali-cuda120
"""

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.pairs import call_alone, in_turns, ratios, spread
from benchmarks.stream import write_images
from tests.acceptance.record import record

NUM_ROUNDS = 5
NUM_BATCHES = {"ours": 12, "decode_alone": 30, "kornia": 2}
LABELS = {
    "ours": "ours (OpenCV, uint8)",
    "decode_alone": "decoding alone",
    "reference": "Pillow and torchvision, to normalised float32",
    "torchvision_v2": "torchvision v2 on uint8 tensors",
    "albumentations": "albumentations 2.0.8",
    "kornia": "kornia, batched",
    "dali": "DALI, CPU operators",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="directory of photographs; scikit-learn's two otherwise")
    parser.add_argument("--peers", default="", help="Python of an environment with albumentations, kornia and DALI")
    requested = parser.parse_args()
    arms = dict.fromkeys(("ours", "decode_alone", "reference", "torchvision_v2"), sys.executable)
    arms |= dict.fromkeys(("albumentations", "kornia", "dali"), requested.peers) if requested.peers else {}
    rates: dict[str, list[float]] = {arm: [] for arm in arms}
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), requested.images, 32 * max(NUM_BATCHES.values()))
        for number, arm in in_turns(arms, NUM_ROUNDS):
            rate = call_alone(arms[arm], "crops_arms.py", arm, folder, NUM_BATCHES.get(arm, 4))["rate"]
            print(f"round {number}: {arm} {rate:.1f} images/s", flush=True)
            if number:
                rates[arm].append(rate)
    rows = [
        f"| {LABELS[arm]} | {spread(found, 0)} | {spread([1000 / rate for rate in found], 2)} | "
        f"{spread(ratios(rates['ours'], found))} |"
        for arm, found in rates.items()
    ]
    lines = [
        "JPEGs of 512×384 pixels, decoded, 1 crop of 224 and 8 of 96 pixels each, in batches of 32; one process and one",
        f"thread an arm; {NUM_ROUNDS} rounds, arms in turns: median (range); ratios within a round. Every arm draws from the",
        "same ranges; that ours are the reference's distribution is tested (tests/fakeit_train/crops/test_crops_distribution.py), of",
        "the others it is not. kornia crops a batch at a time, DALI jitters in a fixed order.",
        "",
        "| | images/s | ms an image | ours / it |",
        "|---|---|---|---|",
        *rows,
    ]
    record("crops", "DINO's crops on one core", lines)


if __name__ == "__main__":
    main()
