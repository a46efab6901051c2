"""Plants bad seeds in the digits, and has them found and replaced by a check with an image-text model.

A bad seed gives an image of another class. The expected verdicts come from transformers' own CLIPModel.

python -m tests.acceptance.accept_checks     # about ten minutes, most of it for training the CLIP
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from builders.format.open_clone import open_clone
from builders.images.read import decode_image
from tests.acceptance.record import ROOT, command, record
from tests.digits_clip import write_digits_clip

PER_CLASS, BATCH = 40, 50
HOPELESS = "n13745086"
"""Class of which every seed is bad."""
ENGINE = '''
"""The engine of diffusion, whose images of some seeds show another class."""

import builders.engines.diffusion as diffusion
from builders.engines.diffusion import *
from builders.engines.base import in_force
from dataclasses import replace

def is_bad(sample):
    return sample.wnid == "HOPELESS" or sample.seed % 7 == 0

def load(recipe, execution):
    return Planted(diffusion.load(recipe, execution), recipe)

class Planted:
    def __init__(self, generate, recipe):
        self.generate, self.names = generate, [entry.name for entry in recipe.classes]
        self.environment = generate.environment

    def __call__(self, samples):
        other = lambda s: self.names[(s.label + 3) % len(self.names)]
        return self.generate([replace(s, prompt=other(s)) if is_bad(s) else s for s in samples])
'''.replace("HOPELESS", HOPELESS)
BUILDER = """
from dataclasses import replace
from builders.clone_builder import CloneBuilder
from builders.digits_sd import BASE, DigitsSD

class PlantedDigits(DigitsSD):
    RECIPES = {"c_cfg2": replace(BASE, engine="planted_digits", guidance_scale=2.0)}
"""
ENTRY = "[fakeit.engines]\nplanted_digits = planted_digits\n"


def scores_of(model: Path, clone: Any) -> dict[str, float]:
    """Returns the cosine of each image and its prompt, by transformers alone."""
    import torch
    from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

    network, tokenizer = CLIPModel.from_pretrained(model).eval(), AutoTokenizer.from_pretrained(model)
    processor = CLIPImageProcessorPil.from_pretrained(model)
    found = {}
    for number in range(len(clone)):
        sample = clone[number]
        prompt = clone.metadata(clone.locate(number)[0])["prompt"][clone.locate(number)[1]].as_py()
        tokens = tokenizer([prompt], padding="max_length", truncation=True, max_length=77, return_tensors="pt")
        pixels = processor([decode_image(sample.image)], return_tensors="pt").pixel_values
        with torch.no_grad():
            logits = network(**tokens, pixel_values=pixels).logits_per_image / network.logit_scale.exp()
        found[clone.key(number)] = float(logits[0, 0])
    return found


def rows_of(clone: Any) -> list[dict[str, Any]]:
    return [row for shard in range(len(clone.manifest.shards)) for row in clone.metadata(shard).to_pylist()]


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        lines = measure(folder)
    finally:
        shutil.rmtree(folder)
    record("checks", "Bad seeds are found by a check and made again", lines)


def write_plugin(plugin: Path) -> Path:
    """Writes a package with the planted engine and its builder; returns its folder."""
    (plugin / "planted_digits-1.0.dist-info").mkdir(parents=True)
    (plugin / "planted_digits-1.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: planted-digits\nVersion: 1.0\n"
    )
    (plugin / "planted_digits-1.0.dist-info/entry_points.txt").write_text(ENTRY)
    (plugin / "planted_digits.py").write_text(ENGINE)
    (plugin / "planted_builder.py").write_text(BUILDER)
    return plugin


def separating_score(scores: dict[str, float], planted: set[str]) -> float:
    """Returns the score that separates planted images from others with the fewest errors."""
    bad, good = (np.array([scores[key] for key in scores if (key in planted) == which]) for which in (True, False))
    candidates = np.array(sorted(scores.values()))
    errors = [(bad >= candidate).sum() + (good < candidate).sum() for candidate in candidates]
    return round(float(candidates[int(np.argmin(errors))]), 3)


def measure(folder: Path) -> list[str]:
    plugin = write_plugin(folder / "plugin")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(plugin)])}
    sys.path.insert(0, str(plugin))
    write_digits_clip(folder / "clip", num_steps=800)

    def make(out: Path, *options: object, is_killed: bool = False) -> None:
        words = command("build", "make", f"{plugin}/planted_builder.py/c_cfg2", out, "--images-per-class", PER_CLASS,
                        "--batch-size", BATCH, "--shard-size", 100, "--image-format", "png", *options)  # fmt: skip
        process = subprocess.Popen(words, env=environment, start_new_session=True)
        while is_killed and not list(out.rglob("*.parquet")):
            assert process.poll() is None
            time.sleep(0.02)
        if is_killed:
            os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == (-signal.SIGKILL if is_killed else 0)

    make(folder / "plain")
    plain = open_clone(str(folder / "plain"))

    planted = {row["key"] for row in rows_of(plain) if row["seed"] % 7 == 0 or row["wnid"] == HOPELESS}
    scores = scores_of(folder / "clip", plain)
    least = separating_score(scores, planted)
    check = ("--check", f"clip={folder / 'clip'}:{least}")
    make(folder / "whole", *check)
    make(folder / "killed", *check, is_killed=True)
    make(folder / "killed", *check)
    whole, killed = (open_clone(str(folder / name)) for name in ("whole", "killed"))
    rows = {row["key"]: row for row in rows_of(whole)}
    remade = {key for key, row in rows.items() if row["attempt"]}
    expected = {key for key, score in scores.items() if score < least}
    caught = len(planted & remade)
    exhausted = [row for row in rows.values() if row["check_score"] < least]
    totals = whole.manifest.verdict_totals()
    after = scores_of(folder / "clip", whole)
    facts = {
        "images of the plain clone below the score, by transformers = images made again": remade == expected,
        "killed and resumed = uninterrupted": killed.manifest.digest == whole.manifest.digest,
        "every kept image that passes has the score that transformers gives it": all(
            abs(after[key] - row["check_score"]) < 1e-4 for key, row in rows.items()
        ),
        "images whose attempts are exhausted are recorded": sum(totals.low.values()) == len(exhausted) > 0
        and {row["attempt"] for row in exhausted} == {9} and {row["verdict"] for row in exhausted} == {"clip"},
    }  # fmt: skip
    lines = [
        "`python -m tests.acceptance.accept_checks`.",
        "",
        f"{10 * PER_CLASS} digits; every seventh seed, and every seed of one class, shows another class. `--check",
        f"clip=MODEL:{least}` with the digits' CLIP of the tests.",
        "",
        f"- planted {len(planted)}, of which {caught} were made again ({caught / len(planted):.1%}); "
        f"{len(remade - planted)} others were made again, too",
        f"- attempts {sum(totals.remade.values())}, exhausted for {len(exhausted)} images",
        *(f"- {name}: **{value}**" for name, value in facts.items()),
    ]
    print("\n".join(lines))
    assert all(facts.values())
    return lines


if __name__ == "__main__":
    main()
