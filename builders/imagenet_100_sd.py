"""ImageNet-100-SD: the 100 classes of ImageNet-100 made by Stable Diffusion v1.4 from their names alone.

fakeit-build make imagenet_100_sd/c_cfg2 OUT
"""

from builders.classes.class_list import ClassEntry
from builders.classes.class_options import ClassOptions
from builders.classes.imagenet import imagenet_classes, read_imagenet100_wnids
from builders.clone_builder import CloneBuilder, paper_recipes
from builders.recipes.paper_defaults import ON_A_GPU, stable_diffusion_v1_4


class ImageNet100SD(CloneBuilder):
    EXECUTION = ON_A_GPU
    RECIPES = paper_recipes(stable_diffusion_v1_4("imagenet_100_sd"))

    @classmethod
    def classes(cls, options: ClassOptions) -> tuple[ClassEntry, ...]:
        return imagenet_classes(read_imagenet100_wnids(), options)
