"""READ FIRST. A builder is a named set of recipes; its methods lead from a recipe to a clone.

    recipe  ->  plan      what to make, a pure function            recipes/recipe.py, planning/plan.py
    plan    ->  shards    an engine generates, a runner runs it    generation/generate_shard.py, engines/, runners/
    shards  ->  clone     final names, clone.json written last     make_clone.py, coordination/finalize.py

To add a builder, write a file with a subclass of `CloneBuilder` and its `RECIPES`. The file's name is the builder's
name. The file may be in this folder or anywhere else: `fakeit-build make my_builder.py/config OUT`.

    from builders.digits_sd import DigitsSD
    builder = DigitsSD(config_name="c_cfg2", images_per_class=200)
    builder.materialize("digits")                      # writes shards, metadata and card; run again to continue
    builder.as_streaming_dataset(split="train")        # generates images on demand
"""

import os
import warnings
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from builders.classes.class_list import ClassEntry
from builders.classes.class_options import ClassOptions, with_counts
from builders.diffusion.token_counts import fetch_tokenizers
from builders.engines.base import complete_recipe, engine, limit_batch_size, pin_model
from builders.errors import UserError, missing_extra, suggest
from builders.format.manifest import Manifest
from builders.make_clone import make_clone
from builders.planning.plan import Plan
from builders.planning.prompt_warnings import prompt_warnings
from builders.prompts.canonical_rows import with_prompts
from builders.recipes.execution import Execution, override_execution
from builders.recipes.prompts import TEMPLATES
from builders.recipes.recipe import Recipe


def paper_recipes(base: Recipe) -> dict[str, Recipe]:
    """Returns a recipe for each prompt of the paper at guidance scales 7.5 and 2: c_cfg7_5, c_cfg2, c_h_cfg7_5, …"""
    found = {}
    for prompt, template in TEMPLATES.items():
        for scale in (7.5, 2.0):
            config = f"{prompt}_cfg{str(scale).removesuffix('.0').replace('.', '_')}"
            found[config] = replace(base, name=f"{base.name}/{config}", prompt=template, guidance_scale=scale)
    return found


class CloneBuilder:
    """A `datasets` builder whose examples are generated. Keyword arguments override fields of the recipe.

    The class does not import `datasets`, which takes most of a second. So recipes are listed, planned and made without
    it. An instance is also a `datasets.GeneratorBasedBuilder` (`generation/dataset_builder.py`).
    """

    RECIPES: ClassVar[dict[str, Recipe]] = {}
    """Recipes by the name of their config."""
    EXECUTION: ClassVar[Execution] = Execution()
    """Default settings of the computation, which the user can override."""
    TAKES_SOURCE: ClassVar[bool] = False
    """Whether the user supplies the classes, in a file or folder (`--source`)."""

    # Instances also have the attributes of a `datasets` builder.
    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __new__(cls, *arguments: Any, **options: Any) -> Self:
        try:
            from builders.generation.dataset_builder import as_dataset_builder
        except ModuleNotFoundError as error:
            raise missing_extra(error.name or "datasets", "build") from None
        made: Self = super().__new__(as_dataset_builder(cls))  # type: ignore[arg-type]
        return made

    def __init__(
        self,
        config_name: str | None = None,
        *,
        images_per_class: int | None = None,
        scale: float | None = None,
        cache_dir: str | None = None,
        **overrides: Any,
    ) -> None:
        options = ClassOptions(**{f.name: overrides.pop(f.name) for f in fields(ClassOptions) if f.name in overrides})
        execution = override_execution(self.EXECUTION, overrides)
        settings = {name: overrides[name] for name in overrides if not hasattr(execution, name)}
        recipe = pin_model(self.recipe(config_name, options, **settings))
        self.execution = limit_batch_size(recipe, execution, is_given="batch_size" in overrides)
        self.plan = Plan(recipe, recipe.rounds(images_per_class, scale))
        super().__init__(  # type: ignore[call-arg]
            cache_dir=cache_dir,
            config_name=config_name,
            recipe=self.plan.recipe,
            num_rounds=self.plan.num_rounds,
            execution=self.execution,
        )

    @classmethod
    def recipe(cls, config_name: str | None, options: ClassOptions = ClassOptions(), **overrides: Any) -> Recipe:
        """Returns the recipe of a named config, with some fields replaced and its classes filled in.

        Raises:
            UserError: the config or a field is unknown, or a value is out of range.
        """
        builder_name = cls.__module__.rsplit(".", 1)[-1]
        if config_name not in cls.RECIPES:
            raise UserError(
                f"unknown config '{config_name}' of '{builder_name}'; {suggest(str(config_name), list(cls.RECIPES))}"
            )
        named = replace(cls.RECIPES[config_name], name=f"{builder_name}/{config_name}")
        recipe = complete_recipe(named, overrides)
        if options.source and not cls.TAKES_SOURCE:
            raise UserError(f"'{builder_name}' has its own classes; leave out --source, or use custom_sd")
        if options.skip_broken and engine(recipe.engine).IS_SYNTHETIC:
            raise UserError(f"'{builder_name}' reads no images; leave out --skip-broken")
        classes = recipe.classes or cls.classes(options)
        recipe = replace(recipe, classes=with_counts(classes, options.counts) if options.counts else classes)
        return with_prompts(recipe, overrides["prompts"]) if overrides.get("prompts") else recipe

    @classmethod
    def classes(cls, options: ClassOptions) -> tuple[ClassEntry, ...]:
        """Returns the classes of this builder, sorted by wnid."""
        raise NotImplementedError

    def materialize(
        self, out: str | Path, *, runner_name: str = "local", num_workers: int = 0, **options: Any
    ) -> Manifest | None:
        """Makes the clone in a directory or at a URL, and continues where an earlier call stopped.

        Args:
            out: Directory or URL of the clone.
            runner_name: local, slurm (within a task of an array), ray, or the name of a plug-in.
            num_workers: Number of workers; 0 means one per GPU, or one without a GPU.
            options: Further arguments of `make_clone`.

        Returns:
            The manifest; None in a task of a Slurm array if other tasks still make shards.

        Raises:
            UserError: the output holds something else, or cannot be written to.
        """
        fetch_tokenizers(self.plan.recipe)
        for warning in prompt_warnings(self.plan):
            warnings.warn(warning, stacklevel=2)
        where = str(out) if "://" in str(out) else os.path.abspath(out)
        return make_clone(
            self.plan, where, execution=self.execution, runner_name=runner_name, num_workers=num_workers, **options
        )
