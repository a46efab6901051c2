"""The options that `plan`, `make` and `grid` share: every field of a recipe and of an execution, and how to choose classes.

The options are built from the dataclasses themselves, so a new field of a recipe is an option without further code.
"""

import ast
import dataclasses
import inspect
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from builders.classes.class_options import ClassOptions
from builders.errors import UserError
from builders.planning.plan import Plan
from builders.recipes.adapters import parse_adapter
from builders.recipes.checks import parse_check
from builders.recipes.execution import AUTO, Execution, override_execution
from builders.recipes.recipe import Recipe

RecipeName = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RECIPE")]
ClonePath = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="CLONE")]
OutPath = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OUT")]

NO_OPTION = (
    "name", "engine", "split", "classes", "num_left_out", "not_applied", "adapter_licenses", "prompts_source", "model_dir",
    "paths",
)  # fmt: skip
"""Fields of a recipe that its builder decides."""
REPEATED = {"adapters": "adapter", "checks": "check"}
"""Options that may be given several times, by field."""
DEFAULT_HINT = "(default: the recipe's)"


def _field_help(kind: type) -> dict[str, str]:
    """The docstring under each field of a dataclass."""
    (definition,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, after in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            found[ast.unparse(field.target)] = inspect.cleandoc(str(after.value.value))
    return found


def _option_fields() -> list[tuple[str, Any, Any]]:
    """Name, type and default of the option for each field; None stands for what the recipe says."""
    help_texts = {**_field_help(Recipe), **_field_help(Execution)}
    found: list[tuple[str, Any, Any]] = []
    for field in (*dataclasses.fields(Recipe), *dataclasses.fields(Execution)):
        if field.name in NO_OPTION:
            continue
        kind: Any = str if field.name == "batch_size" else field.type
        name = REPEATED.get(field.name)
        option = tyro.conf.arg(name=name, help=help_texts[field.name], help_behavior_hint=DEFAULT_HINT)
        if name:
            found.append((field.name, Annotated[kind, tyro.conf.UseAppendAction, option], ()))
        else:
            found.append((field.name, Annotated[kind | None, option], None))
    return found


if TYPE_CHECKING:

    class _FieldOptions:
        model: str | None
        revision: str | None
        adapters: tuple[str, ...]
        checks: tuple[str, ...]
        prompts: str | None
        batch_size: str | None

else:
    _FieldOptions = dataclasses.make_dataclass("_FieldOptions", _option_fields(), frozen=True, kw_only=True)


@dataclass(frozen=True, kw_only=True)
class RecipeOptions(_FieldOptions):
    preset: str | None = None
    """Settings that belong together by one name: dpm8, lcm4, turbo1 or schnell4; `plan` shows what fits the model."""
    images_per_class: Annotated[int | None, tyro.conf.arg(help_behavior_hint=DEFAULT_HINT)] = None
    """Number of images of each class; of the largest class, where counts differ."""
    scale: Annotated[float | None, tyro.conf.arg(help_behavior_hint=DEFAULT_HINT)] = None
    """Number of images as a multiple of the recipe's own number, such as 0.1 or 50."""
    source: str | None = None
    """Class folders (real_images, custom_sd), or a text file with a name, synset or wnid per line (custom_sd)."""
    counts: str | None = None
    """File of lines "class id, count": the number of images of each class in the 1x clone."""
    hypernym_lemmas: str | None = None
    """Which lemmas of the parent fill {h_c}: first or all."""
    hypernym_parent: int | None = None
    """Which parent fills {h_c} where WordNet has several: 1, 2, …"""
    skip_broken: float | None = None
    """Leave out real images that cannot be read, up to this fraction of all; without a value, 0.01."""

    def overrides(self) -> dict[str, Any]:
        """Fields of the recipe; None where the option was not given."""
        given = {name: getattr(self, name) for name in _names(Recipe) if name not in NO_OPTION}
        return {name: None if value == () else value for name, value in {**given, "preset": self.preset}.items()}

    def execution(self, name: str, recipe: Recipe) -> Execution:
        """How workers compute a named recipe: the options that were given, and the builder's own execution for the rest."""
        from builders.engines.base import limit_batch_size
        from builders.registry import find_execution

        given = {name: getattr(self, name) for name in _names(Execution) if getattr(self, name) is not None}
        if self.batch_size is not None:
            given["batch_size"] = AUTO if self.batch_size == "auto" else _parse_batch_size(self.batch_size)
        return limit_batch_size(recipe, override_execution(find_execution(name), given), is_given="batch_size" in given)

    def with_absolute_paths(self) -> "RecipeOptions":
        """The options with absolute paths; a model that is neither directory nor checkpoint here is an id on the Hub."""
        from builders.diffusion.pin import is_local

        is_path = is_local(self.model or "")
        return dataclasses.replace(  # type: ignore[call-arg]
            self,
            model=absolute_path(self.model) if self.model and is_path else self.model,
            source=absolute_path(self.source) if self.source else self.source,
            counts=absolute_path(self.counts) if self.counts else self.counts,
            prompts=absolute_path(self.prompts) if self.prompts else self.prompts,
            adapters=tuple(_absolute_adapter(text) for text in self.adapters),
            checks=tuple(_absolute_check(text) for text in self.checks),
        )

    def class_options(self) -> ClassOptions:
        """How the classes are chosen."""
        given = {name: getattr(self, name) for name in _names(ClassOptions)}
        return ClassOptions(**{name: value for name, value in given.items() if value is not None})

    def plan(self, recipe: str) -> Plan:
        """The plan of a recipe with these options."""
        from builders.registry import find_recipe

        found = find_recipe(recipe, self.overrides(), self.class_options())
        return Plan(found, found.rounds(self.images_per_class, self.scale))


Options = Annotated[RecipeOptions, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="recipe")]


def absolute_path(path: str) -> str:
    """A local path made absolute, so that it means the same to workers in other directories; a URL stays as it is."""
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))


def _absolute_adapter(text: str) -> str:
    adapter = parse_adapter(text)
    # A path may contain an @.
    whole = dataclasses.replace(adapter, id=str(adapter).rpartition("=")[0], revision="")
    found = next((one for one in (whole, adapter) if Path(one.id).exists()), None)
    return str(dataclasses.replace(found, id=absolute_path(found.id))) if found else text


def _absolute_check(text: str) -> str:
    check = parse_check(text)
    kind = absolute_path(check.kind) if check.kind.endswith(".py") else check.kind
    model = absolute_path(check.model) if check.model and Path(check.model).is_dir() else check.model
    return str(dataclasses.replace(check, kind=kind, model=model))


def _names(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _parse_batch_size(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise UserError(f"batch_size is {text}, but must be at least 1, or auto")
