"""What every engine is: a module that says what it can do, and whose `load` returns the call that makes images.

    generate = engine("diffusion").load(recipe, execution)
    images = generate(samples)             # at most execution.batch_size of them, one GeneratedImage each, in their order
    generate.environment                   # versions, device and settings that the bytes depend on

An engine of another package is an entry point in the group "fakeit.engines".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from builders.plugins import find_plugin
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
from builders.recipes.sample import Sample


@dataclass(frozen=True)
class GeneratedImage:
    image: NDArray[np.uint8] | bytes
    """RGB pixels (height, width, 3), or a file that already has the recipe's image format."""
    nsfw: int = -1
    """Verdict of a safety checker: 1 flagged, 0 not, -1 not checked."""
    is_broken: bool = False
    """Whether it has values that are not finite, or is of one flat color."""
    vae_dtype: str = ""
    """Arithmetic in which the autoencoder decoded it; "" where there is none."""
    change: str = ""
    """What was done to a real image, such as turned; "" for one that is kept as it is."""
    problem: str = ""
    """Why there is no image, of a file that cannot be read."""


class Generate(Protocol):
    environment: dict[str, str]
    """Versions, device and settings that the bytes may depend on."""

    def __call__(self, samples: Sequence[Sample]) -> list[GeneratedImage]: ...


class Engine(Protocol):
    USES_GPU: bool
    """Whether a worker gets a GPU of its own, where there is one."""
    IS_SYNTHETIC: bool
    """Whether images are made from prompts, and an image that was rejected can be made again with another seed."""
    HAS_TOKENIZERS: bool
    """Whether the model's folder has tokenizers by which the length of prompts is counted."""
    PACKAGES: tuple[str, ...]
    """Packages that the bytes depend on."""

    def check(self, recipe: Recipe, num_rounds: int) -> None:
        """Checks what no image can be made with.

        Raises:
            UserError: a setting is out of range, or not for this engine.
        """

    def pin(self, recipe: Recipe) -> Recipe:
        """The recipe with `revision`, `model_dir` and whatever else names its source for ever.

        Raises:
            UserError: the source is not there, or another one than the recipe was made with.
        """

    def describe(self, recipe: Recipe) -> str:
        """A line for lists of recipes."""

    def json_fields(self, recipe: Recipe) -> dict[str, Any]:
        """The fields of every sample's json that tell the engine's settings."""

    def load(self, recipe: Recipe, execution: Execution) -> Generate:
        """Makes ready, once a process.

        Raises:
            UserError: the source cannot be loaded so.
        """


def engine(name: str) -> Engine:
    """The engine of that name.

    Raises:
        UserError: there is none, or what it stands on is not installed.
    """
    return cast(Engine, find_plugin("engines", name))


def pin_model(recipe: Recipe) -> Recipe:
    """The recipe with its source named for ever, as its engine does it."""
    return engine(recipe.engine).pin(recipe)
