"""Measures what fewer passes cost: presets, guidance in an interval, and a LCM adapter that is fitted on the spot.

python -m tests.acceptance.accept_few_steps [FOLDER]     # about half an hour on two cores; clones in FOLDER are reused
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from builders.digits_sd import DigitsSD
from builders.engines.base import engine, pin_model
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
from tests.acceptance.accept_digits import real_split, svc_accuracy, synthetic
from tests.acceptance.record import record, run
from tests.fit_lora import fit_lcm_lora

NUM_SEEDS, PER_CLASS, NUM_STEPS_LCM = 3, 30, 400
NUM_ROUNDS = 5
PNDM = ("--scheduler", "PNDMScheduler", "--num-inference-steps", 25)
INTERVALS = ("0:1", "0:0.5", "0.2:0.8", "0.5:1")
T_95 = 4.303
"""Quantile of Student's t for a 95 % interval of three values."""


def settings(lora: Path) -> dict[str, tuple[object, ...]]:
    lcm = ("--adapter", lora, "--scheduler", "LCMScheduler", "--num-inference-steps", 4, "--guidance-scale", 1)
    return {
        "PNDM, 25 steps": PNDM,
        **{f"PNDM, 25 steps, guided in {found}": (*PNDM, "--guidance-interval", found) for found in INTERVALS[1:]},
        "PNDM, 25 steps, not guided": (*PNDM, "--guidance-scale", 1),
        "DPM-Solver++, 8 steps (`dpm8`)": ("--preset", "dpm8"),
        "DPM-Solver++, 4 steps": (),
        "DPM-Solver++, 4 steps, not guided": ("--guidance-scale", 1),
        "LCM adapter, 4 steps": lcm,
        "LCM adapter, 4 steps, first one without it": (*lcm, "--first-step", "base"),
        "LCM adapter, 4 steps, first one without it and guided": (
            *lcm[:-1], 2, "--first-step", "base", "--guidance-interval", "0:0.25",
        ),
    }  # fmt: skip


def recipe_of(options: tuple[object, ...]) -> Recipe:
    names = [str(name).removeprefix("--").replace("-", "_") for name in options[::2]]
    given: dict[str, Any] = dict(zip(names, options[1::2], strict=True))
    if "adapter" in given:
        given["adapters"] = (str(given.pop("adapter")),)
    return pin_model(DigitsSD.recipe("c_cfg2", **given))


def seconds(recipe: Recipe, batch_size: int = 20) -> float:
    """Returns the seconds of one batch on one thread."""
    generate = engine(recipe.engine).load(recipe, Execution(batch_size=batch_size))
    samples = Plan(recipe, 10).shard_samples(0)[:batch_size]
    begun = time.perf_counter()
    generate(samples)
    return time.perf_counter() - begun


def measure(folder: Path, name: str, options: tuple[object, ...], real: Path) -> str:
    """Returns the row of one setting: images/s, and top-1, coverage and diversity over seeds with 95 % intervals."""
    top1, coverage, diversity = [], [], []
    test = real_split("test")
    for seed in range(NUM_SEEDS):
        number = list(settings(Path())).index(name)
        sub = folder / f"{number}-{seed}"
        sub.mkdir(exist_ok=True)
        top1.append(svc_accuracy(synthetic(sub, "digits_sd/c_cfg2", PER_CLASS, "--seed", seed, *options), test))
        (clone,) = (path.parent for path in sub.rglob("clone.json"))
        out = sub / "measures"
        run("eval", "data", clone, "--real", real, "--backbone", "pixels", "--out", out)
        found = json.loads(next(out.rglob("data-*.json")).read_text())["numbers"]
        coverage.append(found["coverage"]["value"])
        diversity.append(found["vendi_score"]["value"])
    recipe = recipe_of(options)
    rate = statistics.median(20 / seconds(recipe) for _ in range(3))
    columns = [f"{statistics.mean(v):.{d}f} ± {half(v):.{d}f}" for v, d in ((top1, 1), (coverage, 3), (diversity, 2))]
    row = f"| {name} | {rate:.1f} | {' | '.join(columns)} |"
    print(row, flush=True)
    return row


def half(values: list[float]) -> float:
    return T_95 * statistics.stdev(values) / len(values) ** 0.5


def interval_times() -> list[str]:
    """Compares the time in an interval with what the number of passes predicts; the three runs are interleaved."""
    rows = []
    full, none = recipe_of(PNDM), recipe_of((*PNDM, "--guidance-scale", 1))
    for interval in INTERVALS[1:]:
        recipe = replace(full, guidance_interval=interval)
        start, stop = map(float, interval.split(":"))
        # PNDM has 26 timesteps for 25 steps.
        guided = sum(start <= index / 26 < stop for index in range(26)) / 26
        ratios = []
        for _ in range(NUM_ROUNDS):
            both, one, found = seconds(full), seconds(none), seconds(recipe)
            ratios.append(found / (one + guided * (both - one)))
        rows.append(
            f"| {interval} | {guided:.0%} | {statistics.median(ratios):.3f} | {min(ratios):.3f} to {max(ratios):.3f} |"
        )
        print(rows[-1], flush=True)
    return rows


def main(folder: Path) -> None:
    if not (folder / "scans").exists():
        subprocess.run([sys.executable, "-m", "builders.embedded.digits", str(folder / "scans")], check=True)
    real = folder / "real-train"
    run("build", "make", "real_images/train", real, "--source", folder / "scans/train")
    lora = folder / "lcm.safetensors"
    if not lora.exists():
        fit_lcm_lora(lora, num_steps=NUM_STEPS_LCM)
    rows = [measure(folder, name, options, real) for name, options in settings(lora).items()]
    write(rows, interval_times())


def write(rows: list[str], times: list[str]) -> None:
    record("few-steps", "Fewer passes: solvers, intervals of guidance, and a distilled adapter", [
        "`python -m tests.acceptance.accept_few_steps`.",
        "",
        f"{PER_CLASS} images a class of `digits_sd/c_cfg2` for each of {NUM_SEEDS} seeds. Top-1 in % is that of scikit-learn's",
        "SVC on the 597 real test digits. Coverage and Vendi score (diversity) are those of `fakeit-eval data --backbone",
        "pixels` against the 1,200 real training digits. ± is the 95 % interval of the mean over seeds. Images/s of one",
        "thread in batches of 20.",
        f"The LCM adapter has rank 16 and was fitted in {NUM_STEPS_LCM} steps.",
        "",
        "| setting | images/s | top-1 | coverage | Vendi score |",
        "|---|---|---|---|---|",
        *rows,
        "",
        "## Time in an interval of guidance",
        "",
        "Seconds of a batch divided by what the number of passes predicts from a guided and an unguided batch beside it,",
        f"{NUM_ROUNDS} interleaved rounds.",
        "",
        "| interval | guided timesteps | median | range |",
        "|---|---|---|---|",
        *times,
    ])  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()))
