"""How the paper made its clones; what it does not say (sampler, precision, format, seeds) is ours, see docs/imagenet.md."""

from builders.classes.scenes import read_places365
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe

ON_A_GPU = Execution(channels_last=True)
"""How workers compute where a GPU in 16 bits is meant."""


def stable_diffusion_v1_4(name: str) -> Recipe:
    """The base recipe of a builder: 50 steps and 512x384 as in section 1 of the paper's supplement, on a GPU in 16 bits."""
    return Recipe(
        name=name,
        model="CompVis/stable-diffusion-v1-4",
        revision="133a221b8aa7292a167afc5127cb63fb5005638b",
        scheduler="PNDMScheduler",
        num_inference_steps=50,
        width=512,
        height=384,
        dtype="float16",
        scenes=read_places365(),
    )
