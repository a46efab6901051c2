"""The four measures on features that are many times their memory; prints seconds, peak memory and values as JSON.

python tests/acceptance/measure_big.py FILE.npy NUM_CLASSES
"""

import json
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

import numpy as np

from fakeit_eval.analysis.analyse import analyse
from fakeit_eval.features import StoredFeatures


def main(path: Path, num_classes: int) -> None:
    shape = np.load(path, mmap_mode="r").shape
    features = StoredFeatures(path, shape, path.stat().st_size - 4 * shape[0] * shape[1])
    start = time.perf_counter()
    found = analyse(features, np.arange(shape[0]) % num_classes, "text")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": time.perf_counter() - start, "peak_gib": peak, **found}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
