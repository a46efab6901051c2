"""Turns a builder into a builder of `datasets`, which generates images on demand.

Invariant: its examples equal the samples of the clone, field for field. Only `batch_slot` may differ, for an image that
was broken and is generated again.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import datasets
import yaml
from datasets.features.features import Features

from builders.engines.base import Generate, engine
from builders.errors import UserError
from builders.format.schema import card_features
from builders.generation.generate_samples import generate_samples
from builders.generation.generate_shard import encode_sample
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
from builders.recipes.sample import Sample
from builders.versions import versions

MAX_SHARD = 1 << 31
"""A number of samples that no shard reaches."""


@dataclass
class CloneConfig(datasets.BuilderConfig):  # type: ignore[misc]
    """A named recipe. `datasets` sets attributes on configs, so all that matters is in frozen dataclasses."""

    recipe: Recipe | None = None
    num_rounds: int = 0
    execution: Execution = Execution()

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: Features | None = None) -> str:
        """Returns the name of the cache; it changes with recipe, length, execution and the versions of packages."""
        assert self.recipe is not None
        packages = versions(*engine(self.recipe.engine).PACKAGES)
        facts = [self.recipe.hash, self.num_rounds, asdict(self.execution), packages]
        return f"{self.name}-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]}"


class PlanDataset(datasets.GeneratorBasedBuilder):  # type: ignore[misc]
    """The methods that `datasets` requires of a builder, implemented with its plan."""

    BUILDER_CONFIG_CLASS = CloneConfig
    plan: Plan
    execution: Execution
    builder: Any
    """The class that users import."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles by the class that users import, because the subclass made here cannot be imported by name."""
        return _restore, (self.builder, self.__getstate__())

    def _info(self) -> datasets.DatasetInfo:
        recipe = self.config.recipe
        listed = yaml.safe_load(yaml.safe_dump(card_features(recipe.image_format, recipe.label_names)))
        return datasets.DatasetInfo(
            description=engine(recipe.engine).describe(recipe), features=Features._from_yaml_list(listed)
        )

    def _split_generators(self, dl_manager: object) -> list[datasets.SplitGenerator]:
        plan = self.plan
        if self.execution.is_auto:
            raise UserError("batch_size is auto, which streaming does not measure; give a number")
        # One range per batch, so that a stream that continues repeats one batch at most. With safety drop or
        # checks there is one range per shard, because rejected images are generated again at its end.
        has_rejects = plan.recipe.safety == "drop" or plan.recipe.checks
        stride = MAX_SHARD if has_rejects else self.execution.batch_size
        shard_ranges = [
            (shard, start, start + stride)
            for shard in range(plan.num_shards)
            for start in range(0, plan.shard_length(shard), stride)
        ]
        return [datasets.SplitGenerator(name=plan.recipe.split, gen_kwargs={"shard_ranges": shard_ranges})]

    def _generate_examples(self, shard_ranges: list[tuple[int, int, int]]) -> Iterator[tuple[str, dict[str, Any]]]:
        generate = engine(self.plan.recipe.engine).load(self.plan.recipe, self.execution)
        for shard, start, stop in shard_ranges:
            samples = self.plan.shard_samples(shard)[start:stop]
            yield from generate_examples(self.plan, samples, generate, self.execution)


@cache
def as_dataset_builder(builder: Any) -> Any:
    """Returns a subclass of a `CloneBuilder`, with its name and module, that is a builder of `datasets` as well."""
    if issubclass(builder, PlanDataset):
        return builder
    configs = [
        CloneConfig(
            name=name,
            version=datasets.Version("1.0.0"),
            description=engine(recipe.engine).describe(recipe),
            recipe=recipe,
        )
        for name, recipe in builder.RECIPES.items()
    ]
    fields = {
        "__module__": builder.__module__,
        "__doc__": builder.__doc__,
        "BUILDER_CONFIGS": configs,
        "builder": builder,
    }
    return type(builder.__name__, (builder, PlanDataset), fields)


def _restore(builder: Any, state: dict[str, Any]) -> Any:
    made = builder.__new__(builder)
    made.__setstate__(state)
    return made


def generate_examples(
    plan: Plan, samples: list[Sample], generate: Generate, execution: Execution
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields samples as examples of `datasets`; images that were generated again come last."""
    for batch in generate_samples(plan, samples, generate, execution.batch_size):
        for made in batch.kept:
            content, fields = encode_sample(plan.recipe, execution, made)
            fields["sha256"] = hashlib.sha256(content).hexdigest()
            key, name = made.sample.key, plan.recipe.image_format
            image = {"bytes": content, "path": f"{key}.{name}"}
            row = {name: image, "cls": made.sample.label, "json": fields, "__key__": key}
            yield key, {**row, "__url__": plan.recipe.name}
