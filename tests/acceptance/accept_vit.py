"""Trains the config `digits_vit` on the demo's clone over three seeds, and the same network by SGD; tests on real digits.

python -m tests.acceptance.accept_vit [FOLDER]     # about 50 minutes on two cores; finished runs in FOLDER are reused
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.acceptance.record import record, run

ARMS = {
    "digits_vit (AdamW)": [],
    "by SGD, rate 0.1": ["optim.name=momentum", "optim.learning_rate=0.1", "optim.weight_decay=0.0005"],
}
NUM_SEEDS, MIN_TOP1, MAX_MINUTES = 3, 95, 10


def measure(folder: Path, arm: str, seed: int) -> dict[str, float]:
    """Returns top-1 on the real test digits in percent, and the minutes that training took."""
    out = folder / f"run-{list(ARMS).index(arm)}-{seed}"
    path = out / "measured.json"
    if not path.is_file():
        began = time.perf_counter()
        data = ("--data", folder / "digits", "--out", out)
        run("train", "digits_vit", *data, "--set", f"data.seed={seed}", *ARMS[arm])
        minutes = (time.perf_counter() - began) / 60
        run("eval", "test", out, "--data", folder / "real-test")
        (result,) = (out / "results").glob("*.json")
        path.write_text(json.dumps({"top1": json.loads(result.read_text())["value"], "minutes": minutes}))
    return dict(json.loads(path.read_text()))


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    if not (folder / "digits" / "clone.json").is_file():
        run("build", "make", "digits_sd/c_cfg2", folder / "digits", "--images-per-class", 200, "--workers", 2)
    if not (folder / "real-test" / "clone.json").is_file():
        from builders.embedded.digits import write_class_folders

        write_class_folders(folder / "scans")
        run("build", "make", "real_images/test", folder / "real-test", "--source", folder / "scans" / "test")
    found: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    for seed in range(NUM_SEEDS):
        for arm in ARMS:
            found[arm].append(measure(folder, arm, seed))
            print(arm, seed, found[arm][-1], flush=True)
    tops = {arm: [one["top1"] for one in each] for arm, each in found.items()}
    times = {arm: [f"{one['minutes']:.1f}" for one in each] for arm, each in found.items()}
    minutes = max(one["minutes"] for one in found["digits_vit (AdamW)"])
    ours, theirs = (statistics.mean(each) for each in tops.values())
    met = ours >= MIN_TOP1 and minutes <= MAX_MINUTES and ours > theirs
    record("vit", "A vision transformer on synthetic digits", [
        "2,000 synthetic digits, tested on 597 real ones. The demo's clone; three training seeds.",
        f"Required: {MIN_TOP1} % in at most {MAX_MINUTES} minutes, and better than by SGD: {'met' if met else 'NOT MET'}.",
        "",
        "| arm | top-1 of each seed, % | mean | minutes |",
        "|---|---|---|---|",
        *(
            f"| {arm} | {', '.join(f'{top:.1f}' for top in tops[arm])} | {statistics.mean(tops[arm]):.1f} | "
            f"{', '.join(times[arm])} |"
            for arm in ARMS
        ),
    ])  # fmt: skip


if __name__ == "__main__":
    main()
