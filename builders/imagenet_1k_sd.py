"""ImageNet-1K-SD: the 1,000 classes of ImageNet-1K made by Stable Diffusion v1.4 from their names alone.

fakeit-build make imagenet_1k_sd/c_d_cfg2 OUT
"""

from builders.classes.class_list import ClassEntry
from builders.classes.class_options import ClassOptions
from builders.classes.imagenet import imagenet_classes, read_parents
from builders.clone_builder import CloneBuilder, paper_recipes
from builders.recipes.paper_defaults import ON_A_GPU, stable_diffusion_v1_4


class ImageNet1KSD(CloneBuilder):
    EXECUTION = ON_A_GPU
    RECIPES = paper_recipes(stable_diffusion_v1_4("imagenet_1k_sd"))

    @classmethod
    def classes(cls, options: ClassOptions) -> tuple[ClassEntry, ...]:
        return imagenet_classes(list(read_parents()), options)
