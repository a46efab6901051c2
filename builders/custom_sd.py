"""A clone of any classes: names, WordNet synsets, or the class folders of an image dataset, made by Stable Diffusion v1.4.

fakeit-build make custom_sd/c_cfg2 OUT --source classes.txt
"""

from builders.classes.class_list import ClassEntry
from builders.classes.class_options import ClassOptions
from builders.classes.custom import custom_classes
from builders.clone_builder import CloneBuilder, paper_recipes
from builders.recipes.paper_defaults import ON_A_GPU, stable_diffusion_v1_4


class CustomSD(CloneBuilder):
    EXECUTION = ON_A_GPU
    RECIPES = paper_recipes(stable_diffusion_v1_4("custom_sd"))
    TAKES_SOURCE = True

    @classmethod
    def classes(cls, options: ClassOptions) -> tuple[ClassEntry, ...]:
        return custom_classes(options)
