"""How the paper made its clones. What it does not state (sampler, precision, format, seeds) is our choice; see
docs/imagenet.md.
"""

from builders.classes.scenes import read_places365
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe

ON_A_GPU = Execution(channels_last=True)
"""How workers compute for builders that are meant for a GPU in 16 bits."""


def stable_diffusion_v1_4(name: str) -> Recipe:
    """Returns a builder's base recipe: 50 steps at 512x384, as in section 1 of the paper's supplement, in 16 bits."""
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
