"""The engine that reads real images from class folders, `<source>/<class>/…/<image>`, in sorted order.

A file is kept byte for byte if it already has the clone's format and looks the same to every reader. Any other file is
encoded again (`images/encode.py`).
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from builders.classes.class_ids import class_ids
from builders.engines.base import GeneratedImage
from builders.errors import UserError
from builders.images.encode import stored
from builders.images.source import SourceFile, pinned_images, read_source
from builders.recipes.execution import Execution
from builders.recipes.recipe import NEUTRAL, Recipe
from builders.recipes.sample import Sample
from builders.versions import versions

USES_GPU = False
IS_SYNTHETIC = False
HAS_TOKENIZERS = False
PACKAGES = ("pillow",)
OF_MODELS = (
    "adapters", "first_step", "checks", "vae_tiling", "quantization", "attention_backend", "first_block_cache",
)  # fmt: skip
"""Fields of a recipe that only generated images have."""


def pin(recipe: Recipe) -> Recipe:
    """Returns the recipe of real images with `revision`, a hash over the names and contents of their files.

    Raises:
        UserError: no source is given, it has broken images, or its images are not those that the recipe was made with.
    """
    if not recipe.model_dir:
        raise UserError("real images need their source; give --source DIR, a directory of class folders")
    source = read_source(recipe.model_dir)
    source.check_broken(1.0 if recipe.num_left_out else 0.0)
    if recipe.revision and recipe.revision != source.digest:
        raise UserError(
            f"the images in '{recipe.model_dir}' are {source.digest}, but the recipe was made with {recipe.revision}; "
            "give --source the images that it was made with, or make another clone"
        )
    return replace(recipe, revision=source.digest)


def check(recipe: Recipe, num_rounds: int) -> None:
    if num_rounds > recipe.default_rounds:
        raise UserError(
            f"{num_rounds} images per class are more than the largest class has ({recipe.default_rounds}); ask for fewer"
        )
    for name in OF_MODELS:
        if getattr(recipe, name) != NEUTRAL[name]:
            raise UserError(f"{name} is {getattr(recipe, name)!r}, but real images are not generated; leave it out")
    if recipe.safety != "off":
        raise UserError(f"safety is '{recipe.safety}', but real images are not checked; leave it out")


def describe(recipe: Recipe) -> str:
    return f"real images of the {recipe.split} split, from --source"


def json_fields(recipe: Recipe) -> dict[str, Any]:
    return {"guidance_scale": 0.0, "num_inference_steps": 0, "scheduler": "", "dtype": ""}


def load(recipe: Recipe, execution: Execution) -> "_Reader":
    return _Reader(recipe)


class _Reader:
    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        images = pinned_images(recipe.model_dir, recipe.revision or read_source(recipe.model_dir).digest)
        self.files = {identity: images[name] for name, identity in class_ids(images).items()}
        self.environment = {**versions(*PACKAGES), "device": "none"}

    def __call__(self, samples: Sequence[Sample]) -> list[GeneratedImage]:
        return [self._read(self.files[sample.wnid][sample.index]) for sample in samples]

    def _read(self, file: SourceFile) -> GeneratedImage:
        recipe, path = self.recipe, os.path.join(self.recipe.model_dir, file.path)
        try:
            content = Path(path).read_bytes()
            if hashlib.sha256(content).hexdigest() != file.sha256:
                raise ValueError("it changed while the clone was made")
            image, change = stored(content, recipe.image_format, recipe.image_quality, recipe.background_color)
        except (ValueError, OSError) as error:
            return GeneratedImage(b"", problem=f"'{path}' cannot be read ({error})")
        return GeneratedImage(image, change=change)
