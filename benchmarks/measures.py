"""Times the comparison of two sets of features, and the bare matrix products that it cannot do without, in turns.

    python -m benchmarks.measures [--images 50000] [--rounds 3]

Each arm is a process of its own, so that its peak memory is known.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

from tests.acceptance.record import record

SIZE = 1_024
SMALL, SMALL_SIZE = 10_000, 384


def arm(name: str, num_images: int, size: int) -> dict[str, float]:
    """Seconds and peak memory in GB of one arm; making the features is outside of the clock."""
    import numpy as np
    import torch

    rng = np.random.default_rng(0)
    synthetic, real = (rng.normal(size=(num_images, size)).astype(np.float32) for _ in range(2))
    started = time.perf_counter()
    if name == "products":
        one, other = torch.from_numpy(synthetic), torch.from_numpy(real)
        for rows, columns in ((one, one), (other, other), (one, other)):
            for start in range(0, num_images, 2_048):
                rows[start : start + 2_048] @ columns.T
    elif name == "neighbors":
        from fakeit_eval.dataset_measures.copies import find_copies
        from fakeit_eval.dataset_measures.manifolds import manifold_measures
        from fakeit_eval.dataset_measures.neighbors import find_neighbors

        found = find_neighbors(synthetic, real)
        manifold_measures(found)
        find_copies(found.nearest_real_distance, found.real_spacing)
    else:
        from fakeit_eval.dataset_measures.measure_all import compare_sets, measure_diversity

        compare_sets(synthetic, real)
        measure_diversity(synthetic, np.arange(num_images) % 1_000, None)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}


def run(name: str, num_images: int, size: int) -> dict[str, float]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.measures",
        "--arm",
        name,
        "--images",
        str(num_images),
        "--size",
        str(size),
    ]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(name, num_images, size, found, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arm", default="")
    given = parser.parse_args()
    if given.arm:
        print(json.dumps(arm(given.arm, given.images, given.size)))
        return
    ratios, memory = [], []
    for number in range(given.rounds):
        names = ("products", "neighbors") if number % 2 else ("neighbors", "products")
        found = {name: run(name, given.images, given.size) for name in names}
        ratios.append(found["neighbors"]["seconds"] / found["products"]["seconds"])
        memory.append(found["neighbors"]["gigabytes"])
    everything = run("everything", SMALL, SMALL_SIZE)
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    count = f"{given.images:,}"
    record(
        "measures",
        "Measuring a clone, compared with the matrix products that it needs",
        [
            f"Precision, recall, density, coverage and copies of {count} + {count} features of {given.size} numbers,",
            "and three bare products of these sizes in the same blocks of rows, single precision, in turns.",
            f"Median (range) over {given.rounds} rounds.",
            "",
            "| | measured | required |",
            "|---|---|---|",
            f"| ours / three bare products, time | {ratio} | at most 1.3 |",
            f"| peak memory of the process, GB | {max(memory):.2f} | at most 2 |",
            f"| all measures of {SMALL:,} + {SMALL:,} features of {SMALL_SIZE}, s | {everything['seconds']:.1f} | under 60 |",
        ],
    )


if __name__ == "__main__":
    main()
