"""Real images from class folders, stored as a clone: the real baseline takes the same road as the synthetic one.

fakeit-build make real_images/train OUT --source imagenet/train
"""

from dataclasses import replace
from typing import Any

from builders.classes.class_list import ClassEntry, read_class_table
from builders.classes.class_options import ClassOptions
from builders.classes.imagenet import imagenet_names
from builders.clone_builder import CloneBuilder
from builders.format.errors import UserError
from builders.making.engines.folder import list_class_folders
from builders.making.recipe import Recipe

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
    batch_size=64,
    safety="off",
)


class RealImages(CloneBuilder):
    TAKES_SOURCE = True
    RECIPES = {
        split: replace(BASE, name=f"real_images/{split}", split=split) for split in ("train", "validation", "test")
    }

    @classmethod
    def recipe(cls, config_name: str | None, options: ClassOptions = ClassOptions(), **overrides: Any) -> Recipe:
        if options.counts:
            raise UserError("real images are counted by their folders; leave out --counts")
        return super().recipe(config_name, options, **{**overrides, "model_dir": options.source})

    @classmethod
    def classes(cls, options: ClassOptions) -> tuple[ClassEntry, ...]:
        names = {entry.wnid: entry.name for entry in read_class_table("digits")} | imagenet_names()
        return tuple(
            ClassEntry(wnid=wnid, name=names.get(wnid, wnid.replace("_", " ")), base_count=len(pictures))
            for wnid, pictures in list_class_folders(options.source).items()
        )
