"""Real images from class folders, stored as a clone: the real baseline takes the same road as the synthetic one.

fakeit-build make real_images/train OUT --source imagenet/train
"""

from dataclasses import replace

import datasets

from builders.classes.class_list import ClassEntry, read_class_table
from builders.clone_builder import CloneBuilder, CloneConfig
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
)


class RealImages(CloneBuilder):
    BUILDER_CONFIGS = [
        CloneConfig(
            name=split,
            version=datasets.Version("1.0.0"),
            description=f"real images of the {split} split, from --source",
            recipe=replace(BASE, name=f"real_images/{split}", split=split),
        )
        for split in ("train", "validation", "test")
    ]

    @classmethod
    def classes(cls, recipe: Recipe) -> tuple[ClassEntry, ...]:
        names = {entry.wnid: entry.name for entry in read_class_table("digits")}
        return tuple(
            ClassEntry(wnid=wnid, name=names.get(wnid, wnid), base_count=len(pictures))
            for wnid, pictures in list_class_folders(recipe.model_dir).items()
        )
