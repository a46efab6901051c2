"""Digits made by the small Stable Diffusion that ships with the package: no GPU, no download, no account.

fakeit-build make digits_sd/c_cfg2 OUT
"""

from dataclasses import replace

from builders.classes.class_list import ClassEntry, read_class_table
from builders.classes.class_options import ClassOptions
from builders.clone_builder import CloneBuilder, paper_recipes
from builders.diffusion.pin import EMBEDDED
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe

IMAGES_PER_CLASS = 200

BASE = Recipe(
    name="digits_sd",
    model=EMBEDDED,
    width=32,
    height=32,
    # As good as PNDM with 25 steps on this model, at a sixth of the passes (benchmarks/results/2026-11-25-demo-native.md).
    scheduler="DPMSolverMultistepScheduler",
    num_inference_steps=4,
    shard_size=500,
    # The backdrops that the embedded model knows.
    scenes=("corridor", "crosswalk", "desert/sand", "lawn", "ocean", "sky", "volcano", "wheat_field"),
)


class DigitsSD(CloneBuilder):
    EXECUTION = Execution(batch_size=50)
    RECIPES = paper_recipes(BASE)

    @classmethod
    def classes(cls, options: ClassOptions) -> tuple[ClassEntry, ...]:
        return tuple(replace(entry, base_count=IMAGES_PER_CLASS) for entry in read_class_table("digits"))
