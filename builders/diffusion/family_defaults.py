"""Finds the family of a model, and fills in what the family decides in a recipe."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from builders.diffusion.families import FAMILIES
from builders.diffusion.family import NEVER, Family
from builders.diffusion.model_config import read_model_config
from builders.diffusion.signature import family_of_signature
from builders.errors import ReadableError, UserError
from builders.recipes.recipe import Recipe, approximations
from builders.recipes.timestep_interval import WHOLE


@dataclass(frozen=True)
class Found:
    """A model's family, and how it was found."""

    family: Family
    reason: str
    """Completes the sentence "found by …"."""
    sample_size: int | None = None
    """Size of images in pixels that the model's configuration says."""


def family_of(recipe: Recipe) -> Found | None:
    """Returns the family of a recipe's model. A model of the Hub whose id is not in the table is looked up there.

    Returns:
        None without a model_index.json.

    Raises:
        UserError: the model cannot be read, or its class is not in the table and its signature does not say enough.
        UnreachableError: the Hub does not answer.
    """
    by_id = next((family for family in FAMILIES if recipe.model in family.hub_ids and not recipe.model_dir), None)
    if by_id:
        return Found(by_id, "its Hub id")
    config = read_model_config(recipe)
    if config is None:
        return None
    pipeline, size = str(config["index._class_name"]), config.get("sample_size")
    rows = [family for family in FAMILIES if family.pipeline == pipeline]
    for family in rows:
        if family.facts and all(config.get(name) == value for name, value in family.facts.items()):
            return Found(family, f"its class and {', '.join(family.facts)}", size)
    if not rows:
        family = family_of_signature(recipe.model, pipeline, config)
        return Found(
            family, f"its class {pipeline}, which is not in the table: it is called as its signature says", size
        )
    default = next((family for family in rows if not family.facts), rows[-1])
    alone = "" if len(rows) == 1 else " alone, whose defaults it takes"
    return Found(default, f"its class {pipeline}{alone}", size)


def complete(recipe: Recipe, found: Found, *, is_other_model: bool, given: Collection[str]) -> Recipe:
    """Returns a recipe with what its model's family decides.

    Args:
        recipe: The recipe with the user's settings.
        found: The family.
        is_other_model: Whether the model is not the one that the other settings were chosen for; then they are the
            family's, except those that were given.
        given: Names of the settings that the user gave.

    Raises:
        UserError: the user gave a setting that this family ignores.
    """
    family = found.family
    if is_other_model:
        # A config such as c_cfg2 says its guidance; all else in it was chosen for its own model.
        kept = {*given, *(("guidance_scale",) if "cfg" in recipe.name.rpartition("/")[2] else ())}
        defaults = defaults_of(family, found.sample_size)
        recipe = replace(recipe, **{name: value for name, value in defaults.items() if name not in kept})
    if family.acts_above == NEVER and recipe.guidance_scale <= 1:
        # Both 0 and 1 say "no guidance"; one of them is recorded.
        recipe = replace(recipe, guidance_scale=1.0)
    if recipe.guidance_interval != WHOLE and not family.interval_tensors:
        raise UserError(
            f"--guidance-interval {recipe.guidance_interval} is not possible with {family.name}, whose pipeline decides once "
            "whether it guides; leave it out"
        )
    if recipe.adapters and not family.takes_adapters:
        raise UserError(
            f"--adapter {recipe.adapters[0]} is not possible with {family.name}, whose pipeline loads none; leave it out"
        )
    for name in ("attention_backend", "first_block_cache"):
        if getattr(recipe, name) and name not in family.accelerations:
            option = f"--{name.replace('_', '-')} {getattr(recipe, name)}"
            raise UserError(f"{option} is not possible with {family.name}; leave it out")
    in_force = family.ignored(recipe)
    for name in in_force:
        if name in given:
            raise UserError(_refusal(family, name, getattr(recipe, name)))
    not_applied = ", ".join(f"{name} {getattr(recipe, name)!r}" for name in in_force)
    return replace(recipe, **in_force, not_applied=not_applied or recipe.not_applied)


def defaults_of(family: Family, sample_size: int | None) -> dict[str, Any]:
    """Returns a family's defaults by field of the recipe; the model's own size comes first."""
    return {
        "width": sample_size or family.size,
        "height": sample_size or family.size,
        "num_inference_steps": family.num_inference_steps,
        "guidance_scale": family.guidance_scale,
        "dtype": family.dtype,
    }


def _refusal(family: Family, name: str, value: Any) -> str:
    option = f"--{name.replace('_', '-')}"
    if name == "guidance_scale":
        return f"{option} {value:g} changes nothing, because {family.name} ignores guidance; leave it out"
    if name == "guidance_interval":
        return (
            f"{option} {value} changes nothing without guidance; give --guidance-scale above {family.acts_above:g} too, or "
            "leave it out"
        )
    if name == "true_cfg_scale" and family.negative_prompt == "true_cfg_scale":
        return (
            f"{option} {value:g} changes nothing without a negative prompt; give --negative-prompt too, or leave it out"
        )
    if name == "true_cfg_scale":
        return f"{option} {value:g} changes nothing, because {family.name} has no such scale; leave it out"
    if family.negative_prompt == "no":
        return f"{family.name} takes no negative prompt; leave {option} out"
    scale, above = "--true-cfg-scale", 1.0
    if family.negative_prompt == "guidance":
        scale, above = "--guidance-scale", family.acts_above
    return f"{option} acts only with {scale} above {above:g}; give that too, or leave {option} out"


def describe_settings(recipe: Recipe) -> list[str]:
    """Returns lines with the model, its family and the settings in force, for `plan`."""
    try:
        found = family_of(recipe)
    except ReadableError as error:
        return [f"the model's family is not known: {error}"]
    scheduler = recipe.scheduler or "the model's own scheduler"
    interval = "" if recipe.guidance_interval == WHOLE else f" in {recipe.guidance_interval} of the timesteps"
    settings = (
        f"{recipe.width}x{recipe.height}, {recipe.num_inference_steps} steps of {scheduler}, guidance "
        f"{recipe.guidance_scale:g}{interval}, {recipe.dtype}"
    )
    adapters = [f"adapter {text}" for text in recipe.adapters]
    settings = ", ".join(
        [settings, *adapters, *(["first step without adapters"] if recipe.first_step else []), *approximations(recipe)]
    )
    if found is None:
        return [f"model {recipe.model} has no model_index.json, so its family is not known; {settings}"]
    lines = [f"model {recipe.model}: {found.family.name}, found by {found.reason}", f"settings: {settings}"]
    if recipe.not_applied:
        lines.append(f"not applied, because it changes no image of {found.family.name} here: {recipe.not_applied}")
    if found.family.largest_batch(recipe) == 1:
        lines.append("batches of one image, because its bytes would depend on its neighbors")
    return lines
