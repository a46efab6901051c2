"""Real images from class folders, stored as a clone, so that the real baseline is trained and evaluated like others.

fakeit-build make real_images/train OUT --source imagenet/train
"""

from dataclasses import replace
from typing import Any

from builders.classes.class_ids import class_ids
from builders.classes.class_list import ClassEntry, read_class_table
from builders.classes.class_options import ClassOptions
from builders.classes.imagenet import imagenet_names
from builders.clone_builder import CloneBuilder
from builders.errors import UserError
from builders.images.source import Source, read_source
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe

BASE = Recipe(
    name="real_images",
    engine="folder",
    prompt="",
    model="class folders",
    scheduler="",
    num_inference_steps=0,
    guidance_scale=0.0,
    width=0,
    height=0,
    safety="off",
)


class RealImages(CloneBuilder):
    TAKES_SOURCE = True
    EXECUTION = Execution(batch_size=64)
    RECIPES = {
        split: replace(BASE, name=f"real_images/{split}", split=split) for split in ("train", "validation", "test")
    }

    @classmethod
    def recipe(cls, config_name: str | None, options: ClassOptions = ClassOptions(), **overrides: Any) -> Recipe:
        """Returns the recipe of the source. Reads every image, so that the recipe counts only readable ones."""
        if options.counts:
            raise UserError("real images are counted by their folders; leave out --counts")
        recipe = super().recipe(config_name, replace(options, source=""), **overrides)
        if not options.source:
            raise UserError("real images need their source; give --source DIR, a directory of class folders")
        source = read_source(options.source)
        source.check_broken(options.skip_broken)
        return replace(
            recipe,
            classes=_classes(source),
            model_dir=options.source,
            revision=recipe.revision or source.digest,
            num_left_out=len(source.broken),
        )

    @classmethod
    def classes(cls, options: ClassOptions) -> tuple[ClassEntry, ...]:
        return ()


def _classes(source: Source) -> tuple[ClassEntry, ...]:
    """Returns the classes, named after their folders; wnids of ImageNet and of the digits get their lemmas."""
    lemmas = {entry.wnid: entry.name for entry in read_class_table("digits")} | imagenet_names()
    return tuple(
        ClassEntry(wnid=identity, name=lemmas.get(identity, name), base_count=len(source.images[name]))
        for name, identity in class_ids(source.images).items()
    )
