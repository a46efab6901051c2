"""Computes the four measures on features far larger than the memory used; prints seconds, peak memory and values as JSON.

python -m tests.acceptance.measure_big FILE.npy NUM_CLASSES
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from fakeit_eval.analyze import analyze
from fakeit_eval.features.extract import StoredFeatures


def main(path: Path, num_classes: int) -> None:
    shape = np.load(path, mmap_mode="r").shape
    features = StoredFeatures(path, shape, path.stat().st_size - 4 * shape[0] * shape[1])
    start = time.perf_counter()
    found = analyze(features, np.arange(shape[0]) % num_classes, "text")
    print(json.dumps({"seconds": time.perf_counter() - start, "peak_gib": peak_gib(), **found}))


def peak_gib() -> float:
    """Returns the peak memory of this process. getrusage would report that of its parent if the parent had more."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**20


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
