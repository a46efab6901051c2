"""Measures the bytes of an image in a clone: photographs in each format, and the bytes of a sample besides its image.

python -m benchmarks.sizes
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import skimage.data
from sklearn.datasets import load_sample_images

from benchmarks.pairs import spread
from builders.engines.base import GeneratedImage
from builders.generation.generate_shard import generate_shard_tar
from builders.imagenet_1k_sd import ImageNet1KSD
from builders.images.encode import encode_image
from builders.images.read import CLONE_FORMATS, Pixels
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.recipes.sample import Sample
from builders.storage.base import open_storage
from tests.acceptance.record import record

QUALITY = 95
NUM_SAMPLES = 1000


class _SameImage:
    """An engine that returns the same file for every sample."""

    environment: dict[str, str] = {}

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __call__(self, samples: Sequence[Sample]) -> list[GeneratedImage]:
        return [GeneratedImage(self.content) for _ in samples]


def photographs() -> dict[str, Pixels]:
    """Returns color photographs that ship with libraries, in their original sizes."""
    china, flower = load_sample_images().images
    names = ("astronaut", "chelsea", "coffee", "rocket", "stereo_motorcycle")
    loaded = {name: getattr(skimage.data, name)() for name in names}
    loaded["stereo_motorcycle"] = loaded["stereo_motorcycle"][0]
    return {"china": china, "flower": flower, **loaded}


def bytes_beyond_image(folder: Path, image: bytes) -> float:
    """Returns the bytes per sample, without its image, in tar and metadata of ImageNet-1K-SD with long prompts."""
    plan = Plan(ImageNet1KSD.recipe("c_d_cfg2", shard_size=NUM_SAMPLES), 1)
    storage = open_storage(str(folder))
    for _ in generate_shard_tar(plan, 0, _SameImage(image), Execution(), storage):
        pass
    length = plan.shard_length(0)
    return sum(storage.sizes().values()) / length - len(image)


def main() -> None:
    found = photographs()
    lines = [
        f"Bytes per pixel of {len(found)} color photographs ({', '.join(found)}), as `encode_image` writes them at quality "
        f"{QUALITY}.",
        "",
        "| format | median (range) |",
        "|---|---|",
    ]
    for image_format in CLONE_FORMATS:
        sizes = [
            len(encode_image(pixels, image_format, QUALITY)) / (pixels.shape[0] * pixels.shape[1])
            for pixels in found.values()
        ]
        lines.append(f"| {image_format} | {spread(sizes)} |")
    image = encode_image(found["china"][:64, :64], "jpg", QUALITY)
    with tempfile.TemporaryDirectory() as name:
        overhead = bytes_beyond_image(Path(name), image)
    lines += [
        "",
        f"A sample of `imagenet_1k_sd/c_d_cfg2` takes {overhead:,.0f} bytes besides its image, in tar and metadata.",
    ]
    record("sizes", "Bytes of an image in a clone", lines)


if __name__ == "__main__":
    main()
