"""The interface of engines: an engine is a module that declares what it can do, and whose `load` returns a callable.

    generate = engine("diffusion").load(recipe, execution)
    images = generate(samples)             # at most execution.batch_size samples; one GeneratedImage each, in order
    generate.environment                   # versions, device and settings that the bytes depend on

Other packages add engines through entry points in the group "fakeit.engines".
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from builders.checks.base import pin_checks
from builders.errors import UserError
from builders.plugins import find_plugin
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe, override_recipe
from builders.recipes.sample import Sample


@dataclass(frozen=True)
class GeneratedImage:
    image: NDArray[np.uint8] | bytes
    """RGB pixels (height, width, 3), or a file that already has the recipe's image format."""
    nsfw: int = -1
    """Verdict of the safety checker: 1 flagged, 0 not flagged, -1 not checked."""
    is_broken: bool = False
    """Whether the image has non-finite values, or is one flat color."""
    vae_dtype: str = ""
    """Floating-point type in which the autoencoder decoded the image; "" without an autoencoder."""
    change: str = ""
    """How a real image was changed, such as "turned"; "" for a file that is kept as it is."""
    problem: str = ""
    """Why a file cannot be read, so that there is no image; "" otherwise."""


class Generate(Protocol):
    environment: dict[str, str]
    """Versions, device and settings that the bytes may depend on."""

    def __call__(self, samples: Sequence[Sample]) -> list[GeneratedImage]: ...


class OverlappingGenerate(Generate, Protocol):
    """An engine's callable whose host work may overlap with the next batch on the device. Others lack these methods."""

    def session(self) -> AbstractContextManager[None]:
        """Holds the settings of the process that bytes depend on, while `start` and what it returns are called."""

    def start(self, samples: Sequence[Sample]) -> Callable[[], list[GeneratedImage]]:
        """Does the device's part of a batch; returns a function that does the host's part, in any thread."""


class Engine(Protocol):
    USES_GPU: bool
    """Whether each worker gets a GPU of its own, if the machine has GPUs."""
    IS_SYNTHETIC: bool
    """Whether images are generated from prompts, so that a rejected image can be generated again with another seed."""
    HAS_TOKENIZERS: bool
    """Whether the model's folder has tokenizers, which count the tokens of prompts."""
    PACKAGES: tuple[str, ...]
    """Packages whose versions the bytes depend on."""

    def check(self, recipe: Recipe, num_rounds: int) -> None:
        """Checks that the engine can make the images of a recipe for this many rounds.

        Raises:
            UserError: a setting is out of range, or this engine does not support it.
        """

    def pin(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with `revision`, `model_dir` and whatever else identifies its source permanently.

        Raises:
            UserError: the source does not exist, or is not the one that the recipe was made with.
        """

    def describe(self, recipe: Recipe) -> str:
        """Returns one line about the recipe, for lists of recipes."""

    def json_fields(self, recipe: Recipe) -> dict[str, Any]:
        """Returns the fields of every sample's json that record the engine's settings."""

    def load(self, recipe: Recipe, execution: Execution) -> Generate:
        """Loads the source and returns the callable that makes images; called once per process.

        Raises:
            UserError: the source cannot be loaded with these settings.
        """


class ModelEngine(Engine, Protocol):
    """An engine with models that differ in what they take. Other engines lack these functions."""

    def complete(self, recipe: Recipe, *, is_other_model: bool, given: Collection[str]) -> Recipe:
        """Returns the recipe with what its source decides, such as the size of a model's images.

        Args:
            recipe: A named recipe with the user's settings.
            is_other_model: Whether the user chose another model than the named recipe's.
            given: Names of the fields that the user set.

        Raises:
            UserError: the user set a field that this source ignores.
        """

    def preset_settings(self, recipe: Recipe, name: str) -> dict[str, Any]:
        """Returns the fields that a preset sets in a recipe of this model.

        Raises:
            UserError: there is no such preset, or it does not fit the model.
        """

    def count_operations(self, recipe: Recipe) -> Any:
        """Returns the `Operations` (diffusion/operations.py) of one image, from the model's configuration alone.

        Raises:
            UserError: the configuration cannot be read, or the model's operations are not counted.
            UnreachableError: the Hub does not answer.
        """

    def max_batch_size(self, recipe: Recipe) -> int | None:
        """Returns the largest batch in which an image does not depend on its neighbors; None if any batch will do."""

    def notes(self, recipe: Recipe) -> list[str]:
        """Returns lines about the source and its settings, for `plan`."""


def session(generate: Generate) -> AbstractContextManager[None]:
    """Returns the context in which `start` may be called."""
    return cast(OverlappingGenerate, generate).session() if hasattr(generate, "session") else nullcontext()


def start(generate: Generate, samples: Sequence[Sample]) -> Callable[[], list[GeneratedImage]]:
    """Does the device's part of a batch, or all of it where an engine does not separate the two."""
    if hasattr(generate, "start"):
        return cast(OverlappingGenerate, generate).start(samples)
    images = generate(samples)
    return lambda: images


def engine(name: str) -> Engine:
    """Returns the engine with this name.

    Raises:
        UserError: there is no such engine, or a package that it needs is not installed.
    """
    return cast(Engine, find_plugin("engines", name))


def complete_recipe(named: Recipe, overrides: dict[str, Any]) -> Recipe:
    """Returns a named recipe with some fields replaced, and with what its source decides filled in.

    Args:
        named: The recipe of a config.
        overrides: Values by field; None keeps a field. "preset" names a set of values, which single ones take
            precedence over; adapters are added to its own.

    Raises:
        UserError: a field is unknown, out of range, or ignored by the source, or the preset does not fit it.
    """
    preset, overrides = _split_preset(overrides)
    recipe = override_recipe(named, overrides)
    models = _models_of(recipe)
    if preset:
        if models is None:
            raise UserError(f"preset '{preset}' is for models, and '{named.name}' has none; leave it out")
        single = {name: value for name, value in overrides.items() if value is not None}
        settings = models.preset_settings(recipe, preset)
        # An adapter of the user, such as one of a style, comes beside the preset's.
        adapters = (*settings.pop("adapters", ()), *single.pop("adapters", ()))
        overrides = {**settings, **single, **({"adapters": adapters} if adapters else {})}
        recipe = override_recipe(named, overrides)
    given = [name for name, value in overrides.items() if value is not None]
    return models.complete(recipe, is_other_model=recipe.model != named.model, given=given) if models else recipe


def complete_frozen_recipe(frozen: Recipe, overrides: dict[str, Any]) -> Recipe:
    """Does the same for the recipe of an existing clone, which stays as it is unless the user gives a setting of it."""
    preset, settings = _split_preset(overrides)
    changed = override_recipe(frozen, settings)
    return changed if changed == frozen and not preset else complete_recipe(frozen, overrides)


def _split_preset(overrides: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Returns the name of the preset among overrides, "" if there is none, and the others."""
    return overrides.get("preset") or "", {name: value for name, value in overrides.items() if name != "preset"}


def in_force(recipe: Recipe, guidance_scale: float) -> Recipe:
    """Returns a recipe with another guidance scale, or with the one that is in force if its model ignores guidance."""
    changed = override_recipe(recipe, {"guidance_scale": guidance_scale})
    models = _models_of(recipe)
    return models.complete(changed, is_other_model=False, given=()) if models else changed


def limit_batch_size(recipe: Recipe, execution: Execution, *, is_given: bool) -> Execution:
    """Returns the execution with a batch size in which no image depends on its neighbors.

    Raises:
        UserError: the user gave a larger one.
    """
    models = _models_of(recipe)
    most = models.max_batch_size(recipe) if models else None
    if most is None or 1 <= execution.batch_size <= most:
        return execution
    if is_given and not execution.is_auto:
        raise UserError(
            f"--batch-size {execution.batch_size} would make an image of '{recipe.model}' depend on its neighbors; leave it "
            f"out, or give {most}"
        )
    return replace(execution, batch_size=most)


def source_notes(recipe: Recipe) -> list[str]:
    """Returns lines about the recipe's model and the settings in force, for `plan`."""
    models = _models_of(recipe)
    return models.notes(recipe) if models else []


def count_operations(recipe: Recipe) -> Any:
    """Returns the operations of one image; see `ModelEngine.count_operations`.

    Raises:
        UserError: the engine has no models.
    """
    models = _models_of(recipe)
    if models is None:
        raise UserError(f"'{recipe.name}' has no model whose operations could be counted; leave --cost out")
    return models.count_operations(recipe)


def pin_model(recipe: Recipe) -> Recipe:
    """Returns the recipe with its source pinned by its engine (see `Engine.pin`), and with its checks pinned."""
    return pin_checks(engine(recipe.engine).pin(recipe))


def _models_of(recipe: Recipe) -> ModelEngine | None:
    found = engine(recipe.engine)
    return cast(ModelEngine, found) if hasattr(found, "complete") else None
