"""Measures prompts from a file: 1.3 million captions, growth and kills, and what composed prompts bring on digits.

python -m tests.acceptance.accept_prompts [FOLDER]     # about 20 minutes on two cores; runs in FOLDER are reused
"""

import csv
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from builders.diffusion.pin import embedded_dir
from builders.digits_sd import DigitsSD
from builders.imagenet_1k_sd import ImageNet1KSD
from builders.planning.plan import Plan
from builders.prompts.canonical_rows import with_prompts
from builders.recipes.recipe import Recipe
from tests.acceptance.record import command, record, run

PER_CLASS, NUM_SEEDS, NUM_KILLS = 1300, 3, 3
WORDS = (
    "red",
    "green",
    "small",
    "large",
    "bright",
    "dark",
    "river",
    "mountain",
    "table",
    "window",
    "garden",
    "near",
    "old",
)
MOST_SECONDS, MOST_KILOBYTES = 5.0, 500 * 1024
SETS = ("digits_clean", "digits_sketch", "digits_restyled")
T_95 = 4.303
"""Quantile of Student's t for a 95 % interval of three values."""


def write_captions(path: Path, recipe: Recipe, per_class: int, *, weighted: bool) -> None:
    """Writes captions of random words, in the order of rounds."""
    dice = random.Random(0)
    with path.open("w") as file:
        writer = csv.writer(file)
        writer.writerow(["class", "text", "weight"])
        for number in range(per_class):
            for entry in recipe.classes:
                words = " ".join(dice.choices(WORDS, k=12))
                weight = round(dice.random() + 0.01, 2) if weighted else 1
                writer.writerow([entry.wnid, f"a photo of {entry.name.split(', ')[0]} {words} {number}", weight])


def with_tokenizer(folder: Path) -> Path:
    """Puts a tokenizer where the Hub's cache would have that of Stable Diffusion 1.4, so that tokens are counted."""
    revision = ImageNet1KSD.recipe("c_cfg2").revision or "main"
    snapshot = folder / "hub" / "models--CompVis--stable-diffusion-v1-4" / "snapshots" / revision
    shutil.copytree(embedded_dir() / "tokenizer", snapshot / "tokenizer", dirs_exist_ok=True)
    return folder / "hub"


def plan_of_many(folder: Path) -> tuple[list[str], bool]:
    """Times `plan` on 1.3 million captions, and the first image of shards at random."""
    path, recipe = folder / "many.csv", ImageNet1KSD.recipe("c_cfg2")
    rows, is_met = [], True
    for weighted in (False, True):
        write_captions(path, recipe, PER_CLASS, weighted=weighted)
        options = ("--prompts", path, *(("--images-per-prompt", 4) if weighted else ()))
        environment = ["env", f"HF_HUB_CACHE={with_tokenizer(folder)}", f"FAKEIT_CACHE={folder / 'cache'}"]
        timed = [
            *environment,
            "/usr/bin/time",
            "-f",
            "%e %M",
            *command("build", "plan", "imagenet_1k_sd/c_cfg2", *options),
        ]
        ended = subprocess.run(timed, check=True, text=True, capture_output=True)
        seconds, kilobytes = ended.stderr.split()[-2:]
        plan = Plan(replace(with_prompts(recipe, str(path)), images_per_prompt=4 if weighted else 1), 10 * PER_CLASS)
        begun = time.perf_counter()
        shards = random.Random(1).sample(range(plan.num_shards), 20)
        for shard in shards:
            plan.sample_at(plan.shard_start(shard))
        first = (time.perf_counter() - begun) / len(shards)
        is_met &= float(seconds) <= MOST_SECONDS and int(kilobytes) <= MOST_KILOBYTES and first < 1
        name = "weighted, K = 4" if weighted else "equal, K = 1"
        rows.append(f"| {name} | {float(seconds):.1f} | {int(kilobytes) / 1024:.0f} | {1000 * first:.1f} |")
        print(rows[-1], flush=True)
    return rows, is_met


def grows_and_survives(folder: Path) -> tuple[list[str], bool]:
    """Compares the shards of 1x and 10x clones, and of clones that were killed, with weights and four images a prompt."""
    captions = folder / "digits.csv"
    write_captions(captions, DigitsSD.recipe("c_cfg2"), 7, weighted=True)
    options = ("--prompts", captions, "--images-per-prompt", 4, "--num-inference-steps", 1, "--shard-size", 40)

    def make(out: Path, count: int, kill_after: float = 0) -> None:
        words = command("build", "make", "digits_sd/c_cfg2", out, *options, "--images-per-class", count)
        started = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            started.wait(kill_after or None)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()

    def shards(out: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(out.glob("data/*/*.tar"))}

    once, tenfold, killed = folder / "once", folder / "tenfold", folder / "killed"
    for out in (once, tenfold, killed):
        shutil.rmtree(out, ignore_errors=True)
    make(once, 18)
    small = shards(once)
    make(once, 180)
    make(tenfold, 180)
    dice = random.Random(2)
    for _ in range(NUM_KILLS):
        make(killed, 180, kill_after=dice.uniform(6, 12))
    make(killed, 180)
    whole = [name for name in small if name != max(small)]
    is_kept = all(shards(tenfold)[name] == small[name] for name in whole)
    is_same = shards(once) == shards(tenfold) == shards(killed) and len(shards(killed)) == 45
    is_same &= (killed / "prompts.parquet").read_bytes() == (tenfold / "prompts.parquet").read_bytes()
    lines = [
        f"- the {len(whole)} whole shards of the 1x clone are in the 10x clone, byte for byte: **{is_kept}**",
        f"- grown from 1x, made at once, and killed {NUM_KILLS} times: the same 45 shards and prompts: **{is_same}**",
    ]
    print("\n".join(lines), flush=True)
    return lines, is_kept and is_same


def half(values: list[float]) -> float:
    return T_95 * statistics.stdev(values) / len(values) ** 0.5


def compare(folder: Path) -> list[str]:
    """Returns a row per kind of prompt: top-1 on three test sets, coverage and diversity, over seeds."""
    scans, real, composed = folder / "scans", folder / "real-train", folder / "composed.csv"
    if not scans.exists():
        subprocess.run([sys.executable, "-m", "builders.embedded.digits", str(scans)], check=True)
    run("build", "make", "real_images/train", real, "--source", scans / "train")
    run("build", "prompts", "make", "digits_sd/c_cfg2", "-o", composed, "--per-class", 13)
    rows = []
    for name, options in (('"c"', ()), ("13 composed captions a class", ("--prompts", composed))):
        found: dict[str, list[float]] = {}
        for seed in range(NUM_SEEDS):
            clone, trained = (folder / f"{kind}-{'composed' if options else 'c'}-{seed}" for kind in ("clone", "run"))
            run("build", "make", "digits_sd/c_cfg2", clone, "--seed", seed, "--workers", 2, *options)
            if not (trained / "backbone.json").exists():
                run("train", "digits", "--data", clone, "--out", trained, "--resume", "--set", f"data.seed={seed}")
            run("eval", "test", trained, "--data", *SETS)
            for path in (trained / "results").glob("test-*.json"):
                result = json.loads(path.read_text())
                found.setdefault(str(result["data"]["name"]), []).append(float(result["value"]))
            run("eval", "data", clone, "--real", real, "--backbone", "pixels", "--out", clone / "measures")
            numbers = json.loads(next((clone / "measures").rglob("data-*.json")).read_text())["numbers"]
            for measure in ("coverage", "vendi_score"):
                found.setdefault(measure, []).append(numbers[measure]["value"])
        columns = [
            f"{statistics.mean(values):.{digits}f} ± {half(values):.{digits}f}"
            for values, digits in zip(
                (found[key] for key in (*SETS, "coverage", "vendi_score")), (1, 1, 1, 3, 2), strict=True
            )
        ]
        rows.append(f"| {name} | {' | '.join(columns)} |")
        print(rows[-1], flush=True)
    return rows


def main(folder: Path) -> None:
    many, is_fast = plan_of_many(folder)
    lines, is_same = grows_and_survives(folder)
    rows = compare(folder)
    record("prompts", "Prompts from a file", [
        "`python -m tests.acceptance.accept_prompts`.",
        "",
        "`fakeit-build plan imagenet_1k_sd/c_cfg2 --prompts` on a CSV of 1.3 million captions (146 MB), the whole command, and",
        "the first image of 20 shards at random of a clone ten times as long:",
        "",
        "| captions | seconds | MB | ms to a shard's first image |",
        "|---|---|---|---|",
        *many,
        "",
        f"- at most {MOST_SECONDS:.0f} s and 500 MB: **{is_fast}**",
        *lines,
        "",
        f"Digits, 200 images a class, {NUM_SEEDS} seeds: top-1 in % of `fakeit-train digits` on three test sets, and",
        "coverage and Vendi score (diversity) of `fakeit-eval data --backbone pixels` against the 1,200 real training digits.",
        "± is the 95 % interval of the mean over seeds.",
        "",
        "| prompts | clean | sketch | restyled | coverage | Vendi score |",
        "|---|---|---|---|---|---|",
        *rows,
    ])  # fmt: skip
    assert is_fast and is_same


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).mkdir(exist_ok=True)
        main(Path(sys.argv[1]).absolute())
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
