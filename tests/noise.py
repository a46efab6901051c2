"""Writes clones of noise images, quickly and with images of a chosen size."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from builders.classes.class_options import ClassOptions
from builders.make_clone import make_clone
from builders.planning.plan import Plan
from builders.real_images import RealImages


def write_noise_clone(out: Path, *, num_classes: int, per_class: int, shard_size: int, side: int) -> Path:
    """Makes a clone of JPEGs of noise, `side` pixels square; each image has about 1.4 bytes per pixel."""
    source = out.with_name(f"{out.name}-images")
    generator = np.random.default_rng(0)
    for label in range(num_classes):
        folder = source / f"class_{label:03d}"
        folder.mkdir(parents=True)
        for index in range(per_class):
            buffer = io.BytesIO()
            Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(
                buffer, "JPEG", quality=95
            )
            (folder / f"{index:06d}.jpg").write_bytes(buffer.getvalue())
    recipe = RealImages.recipe("train", ClassOptions(source=str(source)), shard_size=shard_size)
    make_clone(Plan(recipe, per_class), str(out))
    return out
