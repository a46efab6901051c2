"""Times DINO's 1 + 8 crops on one core, from JPEGs to a batch for the device, and compares other libraries.

python -m benchmarks.crops [--images DIR] [--peers PYTHON]

All arms run in turns, each alone in its process. One of them is the plain composition of Pillow and torchvision.

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
    "reference": "Pillow and torchvision, to normalized float32",
    "torchvision_v2": "torchvision v2 on uint8 tensors",
    "albumentations": "albumentations 2.0.8",
    "kornia": "kornia, batched",
    "dali": "DALI, CPU operators",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="directory of photographs; by default the two of scikit-learn")
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
        "JPEGs of 512×384 pixels, decoded, 1 crop of 224 and 8 crops of 96 pixels each, in batches of 32; one process",
        f"with one thread per arm. Median (range) over {NUM_ROUNDS} rounds, arms in turns; ratios are taken within a round.",
        "Every arm samples from the same ranges. Only our crops are tested to have the reference's distribution",
        "(tests/fakeit_train/crops/test_crops_distribution.py). kornia crops a whole batch at a time, DALI jitters in",
        "a fixed order.",
        "",
        "| arm | images/s | ms per image | images/s of ours / of this arm |",
        "|---|---|---|---|",
        *rows,
    ]
    record("crops", "DINO's 1 + 8 crops on one core", lines)


if __name__ == "__main__":
    main()
