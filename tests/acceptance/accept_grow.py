"""Grows clones from 1x to 2x: every whole shard stays as it is, and stock readers see the new images.

python -m tests.acceptance.accept_grow
"""

import hashlib
import tempfile
from pathlib import Path

import datasets

from builders.classes.class_list import read_class_table
from builders.format.open_clone import open_clone
from tests.acceptance.record import record, run

OPTIONS = ("--shard-size", 64, "--num-inference-steps", 4, "--workers", 2)
IMAGES_PER_CLASS = 30


def digests(out: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((out / "data").rglob("*.tar"))}


def load(out: Path, cache: Path) -> list[str]:
    loaded = datasets.load_dataset(str(out), split="train", cache_dir=str(cache))
    streamed = datasets.load_dataset(str(out), split="train", streaming=True)
    keys = list(loaded["__key__"])
    assert keys == [row["__key__"] for row in streamed]
    return keys


def grow(folder: Path, title: str, options: tuple[object, ...]) -> str:
    out = folder / title.replace(" ", "-")
    run("build", "make", "digits_sd/c_cfg2", out, *OPTIONS, *options, "--scale", 1)
    before, keys, entries = digests(out), load(out, folder / "cache"), open_clone(out).manifest.shards
    run("build", "make", "digits_sd/c_cfg2", out, *OPTIONS, *options, "--scale", 2)
    after, grown = digests(out), load(out, folder / "cache")
    num_whole = sum(
        entry.num_samples == open_clone(out).manifest.shards[n].num_samples for n, entry in enumerate(entries)
    )
    kept = sum(after[name] == digest for name, digest in before.items())
    assert kept == num_whole >= len(before) - 1 and len(grown) > 1.9 * len(keys)
    num_kept = sum(entry.num_samples for entry in entries[:num_whole])
    assert grown[:num_kept] == keys[:num_kept]
    shards = f"{len(before)} ({num_whole} whole) → {len(after)}"
    return f"| {title} | {shards} | {kept} of {num_whole} | {len(keys)} → {len(grown)} |"


def shared_seeds(folder: Path) -> str:
    """Compares two configs that differ in prompt and guidance: all seeds are equal, all images differ."""
    rows = []
    for config in ("c_cfg2", "c_h_inside_b_cfg7_5"):
        run("build", "make", f"digits_sd/{config}", folder / config, *OPTIONS, "--images-per-class", 20)
        clone = open_clone(folder / config)
        table = [row for shard in range(len(clone.manifest.shards)) for row in clone.metadata(shard).to_pylist()]
        rows.append({row["key"]: (row["seed"], row["sha256"]) for row in table})
    first, second = rows
    same_seeds = sum(first[key][0] == second[key][0] for key in first)
    same_images = sum(first[key][1] == second[key][1] for key in first)
    assert first.keys() == second.keys() and same_seeds == len(first) and same_images == 0
    names = "`c_cfg2` and `c_h_inside_b_cfg7_5`"
    return f"{names}: {same_seeds} of {len(first)} images share their seed, {same_images} have equal bytes."


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counts = folder / "counts.csv"
        wnids = [entry.wnid for entry in read_class_table("digits")]
        counts.write_text("".join(f"{wnid},{IMAGES_PER_CLASS - 2 * n}\n" for n, wnid in enumerate(wnids)))
        equal = folder / "equal.csv"
        equal.write_text("".join(f"{wnid},{IMAGES_PER_CLASS}\n" for wnid in wnids))
        rows = [
            grow(folder, "equal counts", ("--counts", equal)),
            grow(folder, "12 to 30 per class", ("--counts", counts)),
        ]
        seeds = shared_seeds(folder)
    lines = [
        "`make digits_sd/c_cfg2 OUT --scale 1`, then `load_dataset(OUT)` prepared and streaming, then `--scale 2` into",
        "the same OUT, then `load_dataset(OUT)` again with the same cache.",
        "",
        "| images per class | shards | whole 1x shards unchanged in 2x (sha256) | images that load_dataset returns |",
        "|---|---|---|---|",
        *rows,
        "",
        seeds,
    ]
    record("grow", "Growing from 1x to 2x", lines)


if __name__ == "__main__":
    main()
