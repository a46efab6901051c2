"""Times `verify` and hashing the same files once with sha256, on images of ImageNet's size.

python -m benchmarks.verify
"""

import hashlib
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.pairs import ratios, spread, time_in_turns
from builders.classes.class_options import ClassOptions
from builders.images.encode import encode_image
from builders.make_clone import make_clone
from builders.planning.plan import Plan
from builders.real_images import RealImages
from builders.verification.verify_clone import verify_clone
from tests.acceptance.record import record

NUM_CLASSES = 10
IMAGES_PER_CLASS = 600
NUM_ROUNDS = 3


def write_images(out: Path) -> None:
    """Writes class folders of 512x384 JPEGs of about 50 KB that show smooth noise."""
    rng = np.random.default_rng(0)
    for label in range(NUM_CLASSES):
        folder = out / f"class_{label}"
        folder.mkdir(parents=True)
        for index in range(IMAGES_PER_CLASS):
            small = Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
            pixels = np.asarray(small.resize((512, 384), Image.Resampling.BICUBIC))
            (folder / f"{index}.jpg").write_bytes(encode_image(pixels, "jpg", 95))


def read_all(root: Path) -> None:
    for path in sorted(root.rglob("*.tar")):
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256")


def verify(root: Path, deep: bool, num_workers: int) -> None:
    assert list(verify_clone(str(root), deep=deep, num_workers=num_workers)) == []


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "images")
        recipe = RealImages.recipe("train", ClassOptions(source=str(folder / "images")), shard_size=250)
        manifest = make_clone(Plan(recipe, IMAGES_PER_CLASS), str(folder / "clone"))
        assert manifest is not None
        root = folder / "clone"
        arms = {
            "sha256 of every tar, one process": partial(read_all, root),
            "verify, 1 process": partial(verify, root, False, 1),
            "verify, 2 processes": partial(verify, root, False, 2),
            "verify --deep, 1 process": partial(verify, root, True, 1),
            "verify --deep, 2 processes": partial(verify, root, True, 2),
        }
        seconds = time_in_turns(arms, NUM_ROUNDS)
    plain = seconds["sha256 of every tar, one process"]
    megabytes = manifest.num_bytes / 1e6
    lines = [
        f"{manifest.num_samples:,} images of 512x384, {len(manifest.shards)} shards, {megabytes:.0f} MB, in the page cache.",
        f"Median (range) over {NUM_ROUNDS} rounds, arms in turns; ratios are taken within a round.",
        "",
        "| arm | MB/s | time / sha256 alone |",
        "|---|---|---|",
        *[
            f"| {arm} | {spread([megabytes / s for s in times], 0)} | {spread(ratios(times, plain))} |"
            for arm, times in seconds.items()
        ],
    ]
    record("verify-speed", "Verifying a clone, compared with hashing it", lines)


if __name__ == "__main__":
    main()
