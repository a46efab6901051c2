"""Measures which faults planted in a digits clone the audit finds: swapped labels, near copies, blank images, drawings.

python -m tests.acceptance.accept_audit [SITE]      # about 10 minutes; SITE keeps the gallery
"""

import io
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from builders.format.open_clone import open_clone
from tests.acceptance.record import record, run
from tests.digits_clip import as_drawing, write_digits_clip

NUM_COPIES, NUM_BLANK, NUM_DRAWN, SHARE_SWAPPED = 20, 5, 10, 0.05

Change = Callable[[Image.Image], Image.Image]
COPIES: dict[str, Change] = {
    "the same": lambda image: image,
    "JPEG quality 60": lambda image: _as_jpeg(image, 60),
    "6 gray levels brighter": lambda image: image.point([min(level + 6, 255) for level in range(256)] * 3),
    "twice as large": lambda image: image.resize((64, 64), Image.Resampling.BICUBIC),
}


def _as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def write_folders(clone: Path, out: Path, rng: np.random.Generator) -> tuple[int, dict[str, set[str]]]:
    """Writes the images as class folders with faults; returns their number and the file names of each kind of fault."""
    opened = open_clone(clone)
    names = opened.manifest.label_names
    swapped = set(rng.permutation(len(opened))[: round(SHARE_SWAPPED * len(opened))].tolist())
    others = [number for number in rng.permutation(len(opened)).tolist() if number not in swapped]
    copied, drawn = others[:NUM_COPIES], set(others[NUM_COPIES : NUM_COPIES + NUM_DRAWN])
    planted: dict[str, set[str]] = {"label": set(), "duplicate": set(), "blank": set(), "medium": set()}

    def save(image: Image.Image, label: int, name: str, kind: str = "") -> None:
        folder = out / names[label]
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{name}.png")
        if kind:
            planted[kind].add(f"{names[label]}/{name}")

    for number in range(len(opened)):
        pixels, label = opened.decoded(number)
        if number in swapped:
            label = int((label + rng.integers(1, len(names))) % len(names))
            save(Image.fromarray(pixels), label, f"a{number:05d}", "label")
        elif number in drawn:
            save(Image.fromarray(as_drawing(pixels)), label, f"a{number:05d}", "medium")
        else:
            save(Image.fromarray(pixels), label, f"a{number:05d}")
    for position, number in enumerate(copied):
        pixels, label = opened.decoded(number)
        change = list(COPIES.values())[position % len(COPIES)]
        save(change(Image.fromarray(pixels)), label, f"b{position:05d}", "duplicate")
    for position in range(NUM_BLANK):
        gray = (60 * position,) * 3
        save(_as_jpeg(Image.new("RGB", (32, 32), gray), 75), int(rng.integers(len(names))), f"c{position}", "blank")
    return len(opened) + NUM_COPIES + NUM_BLANK, planted


def main(work: Path, site: Path) -> None:
    run("build", "make", "digits_sd/c_cfg2", work / "digits", "--images-per-class", 200, "--workers", 2)
    num_images, planted = write_folders(work / "digits", work / "folders", np.random.default_rng(0))
    run("build", "make", "real_images/train", work / "clone", "--source", work / "folders", "--shard-size", 500)
    before = _digest(work / "clone")
    write_digits_clip(work / "clip")
    message = run("build", "audit", work / "clone", "--clip", work / "clip", "--write-exclude", work / "skip.txt")
    assert _digest(work / "clone") == before
    shutil.rmtree(site, ignore_errors=True)
    run("build", "gallery", work / "clone", "-o", site)
    run("build", "verify", work / "clone", "--deep")
    skipped = set((work / "skip.txt").read_text().split())
    steps = ["--step", 0, "--num-steps", (num_images - len(skipped)) // 64]
    seen = run("train", "keys", "digits", "--data", work / "clone", "--exclude", work / "skip.txt", *steps).split()
    assert len(skipped) and not skipped & set(seen)
    record("audit", "Faults planted in a digits clone and found by the audit", [
        f"`python -m tests.acceptance.accept_audit`: {num_images:,} images of `digits_sd/c_cfg2` with planted faults:",
        f"swapped labels, near copies ({', '.join(COPIES)}; five of each), blank images in five grays,",
        "and drawings (dark on white). The image-text model is a small CLIP trained on the 1,200 real training digits.",
        "",
        *_table(work / "clone", work / "folders", planted),
        "",
        f"The list of keys to skip has {len(skipped)} keys, of the kinds broken, blank, duplicate, nsfw and label.",
        "No batch in an epoch of training with this list contained one of them.",
        "",
        "```",
        *[line for line in message.splitlines() if str(work) not in line],
        "```",
    ])  # fmt: skip


def _table(clone: Path, folders: Path, planted: dict[str, set[str]]) -> list[str]:
    """Returns a table with precision and recall of each kind of finding."""
    rows = pq.read_table(clone / "audit.parquet").to_pylist()
    about = [row for path in sorted((clone / "metadata").iterdir()) for row in pq.read_table(path).to_pylist()]
    files = {folder.name: sorted(folder.iterdir()) for folder in folders.iterdir()}
    names = [f"{row['wnid']}/{files[row['wnid']][row['index']].stem}" for row in about]
    lines = ["| fault | planted | found | correctly found | precision | recall |", "|---|---|---|---|---|---|"]
    for kind, expected in planted.items():
        found = {name for name, row in zip(names, rows, strict=True) if kind in row["findings"]}
        # If the order of the plan puts a copy before its original, the audit reports the original as the copy.
        if kind == "duplicate":
            pairs = {row["key"]: name for name, row in zip(names, rows, strict=True)}
            originals = {name: pairs.get(row["duplicate_of"], "") for name, row in zip(names, rows, strict=True)}
            right = {name if name in expected else originals[name] for name in found} & expected
        else:
            right = found & expected
        lines.append(
            f"| {kind} | {len(expected)} | {len(found)} | {len(right)} | {len(right) / max(len(found), 1):.3f} "
            f"| {len(right) / len(expected):.3f} |"
        )
    return lines


def _digest(clone: Path) -> str:
    return open_clone(clone).manifest.digest


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder), Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder) / "site")
