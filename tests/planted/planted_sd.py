"""A test builder in its own file, whose images the planted engine generates.

PYTHONPATH=tests/planted fakeit-build make tests/planted/planted_sd.py/noise OUT
"""

from builders.classes.class_list import ClassEntry
from builders.classes.class_options import ClassOptions
from builders.clone_builder import CloneBuilder
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe

CLASSES = tuple(ClassEntry(wnid=f"n{number:02d}", name=f"class {number}", base_count=60) for number in range(4))
BASE = Recipe(name="planted_sd", engine="planted", model="noise", scheduler="", width=16, height=16, shard_size=20)


class PlantedSD(CloneBuilder):
    EXECUTION = Execution(batch_size=5)
    RECIPES = {"noise": BASE}

    @classmethod
    def classes(cls, options: ClassOptions) -> tuple[ClassEntry, ...]:
        return CLASSES
