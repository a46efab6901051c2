"""`fakeit-build list` and `plan`: what can be made, and what a recipe would make."""

import dataclasses
import sys
from pathlib import Path

from builders.cli.options import Options, RecipeName, RecipeOptions
from builders.engines.base import engine, pin_model, source_notes
from builders.errors import UserError
from builders.planning.plan import Plan
from builders.prompts.prompt_table import prompt_table
from builders.recipes.sample import Sample


def list_() -> None:
    """List all recipes with a description of each."""
    from builders.registry import builder_names, find_builder

    for name in builder_names():
        for config, recipe in find_builder(name).RECIPES.items():
            print(f"{name}/{config:24} {engine(recipe.engine).describe(recipe)}")


def plan(
    recipe: RecipeName,
    /,
    options: Options = RecipeOptions(),
    limit: int = 10,
    at: tuple[int, ...] = (),
    cost: bool = False,
    on: str = "",
    measured: Path | None = None,
) -> None:
    """Show what would be made, as a table, with warnings about the prompts; make nothing.

    Args:
        recipe: builder/config, or a recipe file such as another clone's clone.json.
        limit: Number of samples to show from the beginning; the last one always follows.
        at: Show the samples at these positions instead, numbered from 0.
        cost: Say the operations of an image, and hours and dollars on GPUs, from the model's configuration alone.
        on: Only on this GPU, such as a100 or h100.
        measured: A preview.json of this recipe; says the time by its measure instead, on the machine that made it.
    """
    from builders.planning.cost import check_card, estimated_cost, measured_cost
    from builders.planning.disk_space import disk_space

    if (on or measured) and not cost:
        raise UserError(f"{'--on' if on else '--measured'} belongs to --cost; give that too")
    if on and measured:
        raise UserError(f"--measured says the time on the preview's machine, not --on {on}; give one of them")
    check_card(on)

    planned = options.plan(recipe)
    print(f"{planned.recipe.name}: {planned.num_samples:,} images, {len(planned.recipe.classes):,} classes, ", end="")
    print(f"{planned.num_shards:,} shards of {planned.shard_length(0):,}")
    for line in source_notes(planned.recipe):
        print(line)
    if planned.recipe.prompts:
        print(f"prompts: {prompt_table(planned.recipe.prompts).summary().about}, {planned.recipe.prompts}")
    for position in at:
        if not 0 <= position < planned.num_samples:
            raise UserError(f"--at {position} is not within the clone's samples 0:{planned.num_samples}")
    if limit < 0:
        raise UserError(f"--limit is {limit}; give 0 or more")
    shown = min(limit, planned.num_samples)
    for position in at or range(shown):
        _print_sample(position, planned.sample_at(position))
    if not at and shown < planned.num_samples:
        print("…")
        _print_sample(planned.num_samples - 1, planned.sample_at(planned.num_samples - 1))
    execution = options.execution(recipe, planned.recipe)
    print("\n".join(disk_space(planned, execution)))
    if measured:
        planned = dataclasses.replace(planned, recipe=pin_model(planned.recipe))
        print("\n".join(measured_cost(planned, measured, execution)))
    elif cost:
        print("\n".join(estimated_cost(planned, on)))
    print_prompt_warnings(planned)


def print_prompt_warnings(planned: Plan) -> None:
    """Prints what is odd about a plan's prompts to standard error."""
    from builders.planning.prompt_warnings import prompt_warnings

    for warning in prompt_warnings(planned):
        print(f"fakeit-build: warning: {warning}", file=sys.stderr)


def _print_sample(position: int, sample: Sample) -> None:
    print(f"{position:>10,}  {sample.key}  seed {sample.seed:<16}  {sample.prompt}")
