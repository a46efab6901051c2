"""What every engine is: a module with `load(recipe)`, which returns the call that paints, and `environment(recipe)`.

paint = engine("diffusion").load(recipe)
pictures = paint(samples)              # at most recipe.batch_size of them, one Painted each, in their order
"""

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

import builders.making.engines as engines_folder
from builders.format.errors import UserError, missing_extra, near
from builders.making.plan import Sample
from builders.making.recipe import Recipe


@dataclass(frozen=True)
class Painted:
    picture: NDArray[np.uint8] | bytes
    """RGB pixels (height, width, 3), or a file that already has the recipe's image format."""
    nsfw: int = -1
    """Verdict of a safety checker: 1 flagged, 0 not, -1 not checked."""
    dtype: str = ""
    """Arithmetic it was made in, where that is not the recipe's."""
    change: str = ""
    """What was done to a real image, such as turned; "" for one that is kept as it is."""
    problem: str = ""
    """Why there is no picture, of a file that cannot be read."""


Paint = Callable[[Sequence[Sample]], list[Painted]]


class Engine(Protocol):
    def load(self, recipe: Recipe) -> Paint: ...

    def environment(self, recipe: Recipe) -> dict[str, str]:
        """Versions and device that the bytes may depend on."""
        ...


def engine_names() -> list[str]:
    """The modules in this folder."""
    return [module.name for module in pkgutil.iter_modules(engines_folder.__path__) if module.name != "base"]


def engine(name: str) -> Engine:
    """The engine of that name: a module in this folder.

    Raises:
        UserError: there is none, or what it stands on is not installed.
    """
    if name not in engine_names():
        raise UserError(f"unknown engine '{name}'; {near(name, engine_names())}")
    try:
        return cast(Engine, importlib.import_module(f"{engines_folder.__name__}.{name}"))
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or name, "build") from None
