"""Measures how each execution setting changes the images, and makes one clone with four different batch sizes.

python -m tests.acceptance.accept_executions     # about ten minutes
"""

import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builders.digits_sd import DigitsSD
from builders.engines.base import engine, pin_model
from builders.format.open_clone import open_clone
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.verification.regenerate import regenerate
from tests.acceptance.record import command, record

NUM_IMAGES = 1000
CLOSE_DB, CLOSE_SHARE = 35.0, 0.99
RECIPE = "digits_sd/c_cfg2"
REFERENCE = DigitsSD.EXECUTION
VARIANTS: dict[str, dict[str, Any]] = {
    "again, unchanged": {},
    "batch_size 25": {"batch_size": 25},
    "batch_size 10": {"batch_size": 10},
    "batch_size 1": {"batch_size": 1},
    "num_threads 2": {"num_threads": 2},
    "channels_last": {"channels_last": True},
    "vae_slicing": {"vae_slicing": True},
    "compile": {"compile": True},
}


def images(plan: Plan, execution: Execution) -> NDArray[np.uint8]:
    generate = engine(plan.recipe.engine).load(plan.recipe, execution)
    samples = [plan.sample_at(position) for position in range(NUM_IMAGES)]
    made = []
    for start in range(0, NUM_IMAGES, execution.batch_size):
        made += generate(samples[start : start + execution.batch_size])
    return np.stack([np.asarray(one.image) for one in made])


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Returns the PSNR in decibels of each pair of images (n, height, width, 3); infinite for equal images."""
    error = ((a.astype(float) - b.astype(float)) ** 2).mean(axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(255**2 / error))


def measure_variants() -> list[str]:
    plan = Plan(pin_model(DigitsSD.recipe("c_cfg2")), 200)
    reference, rows = images(plan, REFERENCE), []
    for name, changes in VARIANTS.items():
        found = psnr(images(plan, replace(REFERENCE, **changes)), reference)
        is_equal, share = np.isinf(found), float((found >= CLOSE_DB).mean())
        kind = "exact" if is_equal.all() else "close" if share >= CLOSE_SHARE else "other"
        least = "-" if is_equal.all() else f"{found[~is_equal].min():.1f}"
        rows.append(f"| {name} | {is_equal.mean():.1%} | {share:.1%} | {least} | {kind} |")
        print(rows[-1], flush=True)
        assert kind in ("exact", "close")
    return rows


def make(out: Path, *options: object) -> None:
    done = subprocess.run(
        command("build", "make", RECIPE, out, "--shard-size", 100, *options),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def make_with_four_batch_sizes(out: Path) -> list[str]:
    """Makes a clone of 600 images in batches of 50, 25 and auto, then grows it by 200 in batches of 10."""
    make(out, "--images-per-class", 60, "--batch-size", 50, "--shards", "0:2")
    make(out, "--images-per-class", 60, "--batch-size", 25, "--shards", "2:4")
    make(out, "--images-per-class", 60, "--batch-size", "auto")
    make(out, "--images-per-class", 80, "--batch-size", 10)
    verified = subprocess.run(command("build", "verify", out, "--deep"), capture_output=True, text=True, check=False)
    assert verified.returncode == 0, verified.stdout
    clone = open_clone(str(out))
    sizes = [clone.manifest.executions[shard.execution]["batch_size"] for shard in clone.manifest.shards]
    rows = []
    for shard in (0, 2, 4, 6):
        key = clone.metadata(shard)["key"][11].as_py()
        found = regenerate(clone, key)
        rows.append(f"| {shard} | {sizes[shard]} | `{key}` | {found} |")
        print(rows[-1], flush=True)
        assert found.is_identical
    return [
        f"Batch sizes of the shards: {', '.join(map(str, sizes))}.",
        f"`verify --deep`: {verified.stdout.strip().rpartition(': ')[2]}.",
        "",
        "| shard | batch size | key | `redo` |",
        "|---|---|---|---|",
        *rows,
    ]


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        mixed = make_with_four_batch_sizes(folder / "mixed")
    finally:
        shutil.rmtree(folder)
    record("executions", "How execution settings change the images", [
        "`python -m tests.acceptance.accept_executions`.",
        "",
        f"{NUM_IMAGES:,} images of `{RECIPE}` (float32, CPU), compared with batches of {REFERENCE.batch_size} and one",
        f"thread: *exact* if all pixels are equal, *close* if {CLOSE_SHARE:.0%} of the images have {CLOSE_DB:.0f} dB or more,",
        "else *other*.",
        "",
        "| execution | equal images | 35 dB or more | lowest dB of those that differ | verdict |",
        "|---|---|---|---|---|",
        *measure_variants(),
        "",
        "## One clone with four batch sizes",
        "",
        "`make --batch-size 50 --shards 0:2`, then 25 for two more shards, then auto for the rest of 600 images.",
        "Then the clone grows to 800 images with batches of 10.",
        *mixed,
    ])  # fmt: skip


if __name__ == "__main__":
    main()
