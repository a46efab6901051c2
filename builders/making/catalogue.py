"""Finding recipes: "builder/config" by name, or a recipe file such as the clone.json of another clone."""

import importlib
import json
import pkgutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import builders
from builders.classes.class_options import ClassOptions, with_counts
from builders.format.errors import UserError, missing_extra, near
from builders.making.engines.base import engine_names
from builders.making.recipe import Recipe, override_recipe, recipe_from_dict

if TYPE_CHECKING:
    from builders.clone_builder import CloneBuilder

NOT_BUILDERS = ("__main__", "cli", "clone_builder")


def builder_names() -> list[str]:
    """The builder scripts: the modules at the top of `builders`."""
    modules = pkgutil.iter_modules(builders.__path__)
    return [module.name for module in modules if not module.ispkg and module.name not in NOT_BUILDERS]


def find_builder(name: str) -> "type[CloneBuilder]":
    """The builder class of a builder script.

    Raises:
        UserError: there is no such script, or what it stands on is not installed.
    """
    if name not in builder_names():
        raise UserError(f"unknown builder '{name}'; {near(name, builder_names())}")
    try:
        module = importlib.import_module(f"builders.{name}")
        base = importlib.import_module("builders.clone_builder").CloneBuilder
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or name, "build") from None
    found: type[CloneBuilder] = next(
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value is not base
    )
    return found


def recipes_named(name: str) -> list[str]:
    """The recipes that "builder/config" or "builder" names; none where it names no builder."""
    builder, slash, _ = name.partition("/")
    if builder not in builder_names():
        return []
    return [name] if slash else [f"{builder}/{config}" for config in find_builder(builder).RECIPES]


def find_recipe(recipe: str, overrides: dict[str, Any], options: ClassOptions = ClassOptions()) -> Recipe:
    """A recipe by "builder/config" or from a JSON file, with some fields replaced and its classes as `options` say.

    Raises:
        UserError: no such builder, config, file or field.
    """
    if recipe.endswith(".json") or Path(recipe).is_file():
        return _read_recipe_file(Path(recipe), overrides, options)
    builder, slash, config = recipe.partition("/")
    if not slash:
        raise UserError(f"'{recipe}' is no recipe; write builder/config, such as digits_sd/c_cfg2, or a recipe file")
    return find_builder(builder).recipe(config, options, **overrides)


def _read_recipe_file(path: Path, overrides: dict[str, Any], options: ClassOptions) -> Recipe:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        fields = content.get("recipe", content)
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"recipe file '{path}' cannot be read ({error})") from None
    recipe = recipe_from_dict(fields)
    if recipe.engine not in engine_names():
        raise UserError(f"unknown engine '{recipe.engine}' in '{path}'; {near(recipe.engine, engine_names())}")
    model = overrides.get("model")
    if model and Path(model).is_dir() and overrides.get("revision") is None:
        # The same model, wherever it lies here: checked against the recipe's revision.
        overrides = {**overrides, "model": None, "model_dir": model}
    recipe = override_recipe(recipe, overrides)
    if recipe.engine == "folder" and options.source:
        recipe = replace(recipe, model_dir=options.source)
    elif replace(options, counts="", skip_broken=0.0) != ClassOptions():
        raise UserError(f"recipe file '{path}' lists its classes already; leave out --source and --hypernym-…")
    if recipe.engine == "folder" and options.counts:
        raise UserError("real images are counted by their folders; leave out --counts")
    return replace(recipe, classes=with_counts(recipe.classes, options.counts)) if options.counts else recipe
