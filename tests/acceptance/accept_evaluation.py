"""Times the offline evaluation of a digits backbone; checks the four measures against slow references.

python -m tests.acceptance.accept_evaluation [RUN]      # about 15 minutes with a finished run (make demo leaves one)

It also records the peak memory of the four measures on a file of 4.1 GB.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from builders.networks.backbone import DESCRIPTION, WEIGHTS
from fakeit_eval.analyze import MEASURES, analyze
from fakeit_eval.features.extract import Loading, extract
from fakeit_eval.features.rows import UnitRows
from fakeit_eval.models import open_model
from fakeit_eval.open_test_sets import open_test_sets
from tests.acceptance.record import ROOT, command, record, run
from tests.fakeit_eval.measures.test_measures import SLOW

NUM_ROWS, SIZE, NUM_CLASSES = 500_000, 2048, 8142


def timed_suite(backbone: Path, cache: Path) -> tuple[float, str]:
    start = time.perf_counter()
    arguments = ("eval", "suite", backbone, "--cache", cache)
    printed = subprocess.run(command(*arguments), check=True, text=True, stdout=subprocess.PIPE, cwd=ROOT).stdout
    return time.perf_counter() - start, printed


def differences(backbone: Path, cache: Path) -> dict[str, float]:
    """Returns the largest relative difference of each measure from its float64 reference, over the five test sets."""
    model, found = open_model(str(backbone)), dict.fromkeys(MEASURES, 0.0)
    for opened in open_test_sets(["digits"], ""):
        features = extract(model, opened.images, Loading(cache=cache))
        labels = opened.images.labels
        fast = analyze(features, labels, "text")
        exact = np.asarray(UnitRows(features)[:], dtype=np.float64)
        for name in MEASURES:
            slow = SLOW[name](exact, labels)
            found[name] = max(found[name], abs(fast[name] - slow) / abs(slow))
    return found


def measure_big(folder: Path) -> dict[str, Any]:
    """Measures random features, half of them zeros, in a process of its own."""
    path, rng = folder / "big.npy", np.random.default_rng(0)
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(NUM_ROWS, SIZE))
    for start in range(0, NUM_ROWS, 10_000):
        rows[start : start + 10_000] = np.maximum(rng.standard_normal((10_000, SIZE), dtype=np.float32), 0)
    rows.flush()
    del rows
    started = [sys.executable, "-m", "tests.acceptance.measure_big", str(path), str(NUM_CLASSES)]
    ended = subprocess.run(started, check=True, text=True, stdout=subprocess.PIPE, cwd=ROOT)
    path.unlink()
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def train_digits(folder: Path) -> Path:
    run("build", "make", "digits_sd/c_cfg2", folder / "clone", "--images-per-class", 200, "--workers", 2)
    run("train", "digits", "--data", folder / "clone", "--out", folder / "run", "--resume")
    return folder / "run"


def main(folder: Path, trained: Path | None) -> None:
    source, backbone = trained or train_digits(folder), folder / "digits"
    backbone.mkdir()
    for name in (DESCRIPTION, WEIGHTS):
        shutil.copy(source / name, backbone)
    first, printed = timed_suite(backbone, folder / "cache")
    again, same = timed_suite(backbone, folder / "cache")
    assert printed == same
    found, big = differences(backbone, folder / "cache"), measure_big(folder)
    lines = [
        f"The suite takes {first:.0f} s for a digits backbone trained on synthetic digits alone, and {again:.1f} s when "
        "it runs again with its cache. Two cores, no GPU.",
        "",
        printed.replace(str(folder) + "/", ""),
        "Largest relative difference of each measure from its slow float64 reference, over the five test sets: "
        + ", ".join(f"{name.replace('_', ' ')} {value:.1e}" for name, value in found.items())
        + ".",
        "",
        f"All four measures on {NUM_ROWS:,} x {SIZE:,} random features in a file of 4.1 GB, {NUM_CLASSES:,} classes: "
        f"{big['seconds']:.0f} s, peak memory of the process {big['peak_gib']:.2f} GiB.",
    ]
    record("evaluation", "The offline evaluation, and the four measures", lines)
    assert first < 180 and again < 10 and max(found.values()) < 1e-4 and big["peak_gib"] < 2


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(scratch), Path(sys.argv[1]) if len(sys.argv) > 1 else None)
