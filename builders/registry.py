"""Finds recipes: by their name "builder/config", or in a recipe file such as the clone.json of another clone."""

import contextlib
import importlib
import importlib.util
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from builders.classes.class_options import ClassOptions, with_counts
from builders.diffusion.pin import is_local
from builders.engines.base import complete_frozen_recipe, engine
from builders.errors import UserError, suggest
from builders.format.manifest import check_version
from builders.plugins import find_plugin, plugin_names
from builders.prompts.canonical_rows import with_prompts
from builders.prompts.prompt_table import fetch_prompts
from builders.recipes.execution import Execution, execution_from_dict
from builders.recipes.recipe import Recipe, recipe_from_dict
from builders.storage.base import open_storage

if TYPE_CHECKING:
    from builders.clone_builder import CloneBuilder

FILE = re.compile(r"(.+\.py)(?:/([^/]*))?")
"""Matches the path of a builder file and an optional config: my_builder.py/config."""


def builder_names() -> list[str]:
    """Returns the names of all builders: modules of this package and of plug-ins that define a builder class."""
    found = []
    for name in plugin_names("builders"):
        # A module that needs a missing package is left out.
        with contextlib.suppress(UserError):
            found += [name] if _builder_of(name) else []
    return found


def find_builder(name: str) -> "type[CloneBuilder]":
    """Returns a builder class, by the builder's name or by the path of its file.

    Raises:
        UserError: there is no such builder, or a package that it needs is not installed.
    """
    if name.endswith(".py"):
        module = _load_file(Path(name))
        if (found := _defined_in(module)) is None:
            raise UserError(f"'{name}' defines no builder; give it a subclass of CloneBuilder with RECIPES")
        return found
    found = _builder_of(name) if name in plugin_names("builders") else None
    if found is None:
        raise UserError(f"unknown builder '{name}'; {suggest(name, builder_names())}")
    return found


def _builder_of(name: str) -> "type[CloneBuilder] | None":
    return _defined_in(find_plugin("builders", name))


def _defined_in(module: ModuleType) -> "type[CloneBuilder] | None":
    """Returns the builder class that a module defines itself. Base classes that it imports do not count."""
    base = importlib.import_module("builders.clone_builder").CloneBuilder
    own = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__]
    return next((value for value in own if issubclass(value, base) and value is not base), None)


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(f"there is no builder file '{path}'; check the path")
    name = path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # The builder file may import helper files from its own folder.
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"builder file '{path}' fails ({type(error).__name__}: {error}); fix it") from None
    finally:
        sys.path.pop(0)
    return module


def recipes_named(name: str) -> list[str]:
    """Returns the recipe names that "builder/config" or "builder" stands for; none if there is no such builder."""
    builder, slash, _ = name.partition("/")
    if builder not in plugin_names("builders") or builder not in builder_names():
        return []
    return [name] if slash else [f"{builder}/{config}" for config in find_builder(builder).RECIPES]


def find_recipe(recipe: str, overrides: dict[str, Any], options: ClassOptions = ClassOptions()) -> Recipe:
    """Returns a recipe by "builder/config" or from a JSON file, with some fields replaced and classes set by `options`.

    Raises:
        UserError: the builder, config, file or a field does not exist.
    """
    if _is_recipe_file(recipe):
        return _read_recipe_file(Path(recipe), overrides, options)
    builder, config = _split_name(recipe)
    return find_builder(builder).recipe(config, options, **overrides)


def find_execution(recipe: str) -> Execution:
    """Returns the default execution of a recipe: the builder's, or for a clone's manifest that of its first shard."""
    if _is_recipe_file(recipe):
        executions = _read_json(Path(recipe)).get("executions") or [{}]
        return execution_from_dict(executions[0])
    return find_builder(_split_name(recipe)[0]).EXECUTION


def _is_recipe_file(recipe: str) -> bool:
    return recipe.endswith(".json") or (Path(recipe).is_file() and not recipe.endswith(".py"))


def _split_name(recipe: str) -> tuple[str, str]:
    """Splits "builder/config" into builder and config."""
    if file := FILE.fullmatch(recipe):
        return file[1], file[2] or ""
    builder, slash, config = recipe.partition("/")
    if not slash:
        raise UserError(f"'{recipe}' is not a recipe; write builder/config, such as digits_sd/c_cfg2, or a recipe file")
    return builder, config


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"recipe file '{path}' cannot be read ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"recipe file '{path}' cannot be read (it holds a {type(content).__name__}, not an object)")
    # Only manifests have this key.
    if "format" in content:
        check_version(content["format"], str(path))
    return content


def _read_recipe_file(path: Path, overrides: dict[str, Any], options: ClassOptions) -> Recipe:
    content = _read_json(path)
    recipe = recipe_from_dict(content.get("recipe", content))
    is_synthetic = engine(recipe.engine).IS_SYNTHETIC
    model = overrides.get("model")
    if model and is_local(model) and overrides.get("revision") in (None, recipe.revision):
        # A local copy of the recipe's model; it is checked against the recipe's revision.
        overrides = {**overrides, "model": None, "model_dir": model}
    prompts = overrides.get("prompts")
    if prompts and recipe.prompts:
        # They may be those that the recipe has, and then it stays as it is.
        overrides = {**overrides, "prompts": None}
    recipe = complete_frozen_recipe(recipe, overrides)
    if not is_synthetic and options.source:
        recipe = replace(recipe, model_dir=options.source)
    elif replace(options, counts="", skip_broken=0.0) != ClassOptions():
        raise UserError(f"recipe file '{path}' lists its classes already; leave out --source and --hypernym-…")
    if not is_synthetic and options.counts:
        raise UserError("real images are counted by their folders; leave out --counts")
    recipe = replace(recipe, classes=with_counts(recipe.classes, options.counts)) if options.counts else recipe
    if prompts:
        return with_prompts(recipe, prompts)
    if not fetch_prompts(recipe.prompts, open_storage(path.parent)):
        raise UserError(
            f"the recipe of '{path}' has the prompts of '{recipe.prompts_source}'; give --prompts that file"
        )
    return recipe
