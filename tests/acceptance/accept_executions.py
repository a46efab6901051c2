"""Measures how each setting that makes generating faster or smaller changes the images, and makes one clone with four
different batch sizes.

python -m tests.acceptance.accept_executions     # about 25 minutes; int8 is left out without torchao
"""

import dataclasses
import importlib.util
import shutil
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builders.classes.class_list import ClassEntry
from builders.diffusion import loading
from builders.digits_sd import DigitsSD
from builders.engines.base import complete_recipe, engine, pin_model
from builders.format.open_clone import open_clone
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
from builders.verification.regenerate import regenerate
from tests.acceptance.record import command, record
from tests.tiny_families import write_tiny_family

STEPS = {25: 200, 50: 100}
"""Number of images for each number of steps."""
CLOSE_DB, CLOSE_SHARE = 35.0, 0.99
RECIPE = "digits_sd/c_cfg2"
REFERENCE = DigitsSD.EXECUTION
WHOLE = "compile, whole denoiser at once"
VARIANTS: dict[str, dict[str, Any]] = {
    "again, unchanged": {},
    "batch_size 25": {"batch_size": 25},
    "batch_size 10": {"batch_size": 10},
    "batch_size 1": {"batch_size": 1},
    "num_threads 2": {"num_threads": 2},
    "channels_last": {"channels_last": True},
    "vae_slicing": {"vae_slicing": True},
    "compile": {"compile": True},
    WHOLE: {"compile": True},
    "vae_tiling (recipe)": {"vae_tiling": True},
    "vae_tiling (recipe) at 64x64": {"vae_tiling": True, "width": 64, "height": 64},
    "quantization int8 (recipe)": {"quantization": "int8"},
}
FLUX: dict[str, dict[str, Any]] = {
    "again, unchanged": {},
    "attention_backend native": {"attention_backend": "native"},
    "attention_backend _native_math": {"attention_backend": "_native_math"},
    "attention_backend flex": {"attention_backend": "flex"},
    "first_block_cache 0.02": {"first_block_cache": 0.02},
    "first_block_cache 0.1": {"first_block_cache": 0.1},
    "first_block_cache 0.5": {"first_block_cache": 0.5},
}


def images(recipe: Recipe, execution: Execution, num_images: int) -> tuple[NDArray[np.uint8], float, float]:
    """Returns images (n, height, width, 3), images/s without the first batch, and the seconds of the first batch."""
    plan = Plan(recipe, 200)
    generate = engine(recipe.engine).load(recipe, execution)
    samples = [plan.sample_at(position) for position in range(num_images)]
    made, seconds = [], []
    for start in range(0, num_images, execution.batch_size):
        begun = time.perf_counter()
        made += generate(samples[start : start + execution.batch_size])
        seconds.append(time.perf_counter() - begun)
    rate = execution.batch_size * (len(seconds) - 1) / max(sum(seconds[1:]), 1e-9)
    return np.stack([np.asarray(one.image) for one in made]), rate, seconds[0]


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Returns the PSNR in decibels of each pair of images (n, height, width, 3); infinite for equal images."""
    error = ((a.astype(float) - b.astype(float)) ** 2).mean(axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(255**2 / error))


def verdict(found: NDArray[np.float64]) -> str:
    if np.isinf(found).all():
        return "exact"
    return "close" if (found >= CLOSE_DB).mean() >= CLOSE_SHARE else "other"


def decibels(value: float) -> str:
    return "equal" if np.isinf(value) else f"{value:.1f}"


def measure_variants() -> list[str]:
    from diffusers import UNet2DConditionModel

    base, rows = pin_model(DigitsSD.recipe("c_cfg2")), []
    references: dict[tuple[int, int], NDArray[np.uint8]] = {}
    of_execution = [field.name for field in dataclasses.fields(Execution)]
    blocks = UNet2DConditionModel._repeated_blocks
    for name, changes in VARIANTS.items():
        if "quantization" in changes and importlib.util.find_spec("torchao") is None:
            continue
        for num_steps, num_images in STEPS.items():
            execution = replace(REFERENCE, **{n: v for n, v in changes.items() if n in of_execution})
            size = {n: v for n, v in changes.items() if n in ("width", "height")}
            recipe = replace(base, num_inference_steps=num_steps, **size)
            key = (num_steps, recipe.width)
            if key not in references:
                references[key] = images(recipe, REFERENCE, num_images)[0]
            recipe = replace(recipe, **{n: v for n, v in changes.items() if n not in of_execution})
            UNet2DConditionModel._repeated_blocks = [] if name == WHOLE else blocks
            loading._last_loaded.clear()
            made, rate, first = images(recipe, execution, num_images)
            found = psnr(made, references[key])
            worst = int(found.argmin())
            rows.append(
                f"| {name} | {num_steps} | {verdict(found)} | {rate:.2f} | {first:.1f} | {np.isinf(found).mean():.1%} | "
                f"{decibels(float(np.quantile(found, 0.01, method='lower')))} | {decibels(float(found[worst]))} "
                f"(`{Plan(recipe, 200).sample_at(worst).key}`) |"
            )
            print(rows[-1], flush=True)
            assert "(recipe)" in name or verdict(found) in ("exact", "close"), rows[-1]
    return rows


def measure_flux(folder: Path) -> list[str]:
    """Measures settings that only some transformers take, on a tiny random Flux: whether they act and change bytes."""
    classes = tuple(ClassEntry(wnid=f"n{number:02d}", name=f"class {number}") for number in range(20))
    named = Recipe(name="tiny", classes=classes, model="other", safety="off")
    given = {
        "model": str(write_tiny_family("Flux dev", folder / "flux")),
        "width": 64,
        "height": 64,
        "dtype": "float32",
    }
    base = replace(pin_model(complete_recipe(named, given)), num_inference_steps=25)
    rows, reference = [], images(base, Execution(batch_size=1), 20)[0]
    for name, changes in FLUX.items():
        try:
            made, rate, _ = images(replace(base, **changes), Execution(batch_size=1), 20)
        except Exception as error:  # a backend may need a compiler or a GPU
            rows.append(f"| {name} | - | - | cannot be used here ({str(error).splitlines()[0][:80]}) |")
        else:
            found = psnr(made, reference)
            rows.append(f"| {name} | {rate:.1f} | {np.isinf(found).mean():.0%} | {decibels(float(found.min()))} |")
        print(rows[-1], flush=True)
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
        flux = measure_flux(folder)
    finally:
        shutil.rmtree(folder)
    record("executions", "How settings for speed and memory change the images", [
        "`python -m tests.acceptance.accept_executions`.",
        "",
        f"`{RECIPE}` (DPM-Solver++, float32, CPU) with {' and '.join(f'{n} images at {s} steps' for s, n in STEPS.items())},",
        f"compared with batches of {REFERENCE.batch_size} and one thread: *exact* if all pixels are equal, *close* if",
        f"{CLOSE_SHARE:.0%} of the images have {CLOSE_DB:.0f} dB or more, else *other*. Settings of a recipe may be *other*.",
        "",
        "| setting | steps | class | images/s | first batch, s | equal images | dB that 99 % reach | worst dB |",
        "|---|---|---|---|---|---|---|---|",
        *measure_variants(),
        "",
        "## Settings of transformers, on a tiny random Flux",
        "",
        "20 images of 64x64 at 25 steps, one a batch. They show that a setting acts. All of these count as *other*.",
        "",
        "| setting | images/s | equal images | worst dB |",
        "|---|---|---|---|",
        *flux,
        "",
        "## One clone with four batch sizes",
        "",
        "`make --batch-size 50 --shards 0:2`, then 25 for two more shards, then auto for the rest of 600 images.",
        "Then the clone grows to 800 images with batches of 10.",
        *mixed,
    ])  # fmt: skip


if __name__ == "__main__":
    main()
