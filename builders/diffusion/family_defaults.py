"""Finds the family of a model, and fills in what the family decides in a recipe."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from builders.diffusion.families import FAMILIES, Family
from builders.diffusion.model_config import read_model_config
from builders.diffusion.pin import model_directory
from builders.diffusion.signature import family_of_signature
from builders.errors import UserError
from builders.recipes.recipe import Recipe


@dataclass(frozen=True)
class Found:
    """A model's family, and how it was found."""

    family: Family
    reason: str
    """Completes the sentence "found by …"."""


def family_of(recipe: Recipe) -> Found | None:
    """Returns the family of a recipe's model. A model of the Hub whose id is not in the table is looked up there.

    Returns:
        None if the model's configuration cannot be read, as without a network.

    Raises:
        UserError: the model's class is not in the table, and its signature does not say enough.
    """
    model = "" if model_directory(recipe) else recipe.model
    if not recipe.model_dir and (found := _find_family(model, None)):
        return found
    config = read_model_config(recipe)
    if config is None:
        return None
    if found := _find_family(model, config):
        return found
    pipeline = str(config["index._class_name"])
    family = family_of_signature(recipe.model, pipeline, config)
    return Found(family, f"its class {pipeline}, which is not in the table: it is called as its signature says")


def _find_family(model: str, config: Mapping[str, Any] | None) -> Found | None:
    """Finds a family in the table.

    Args:
        model: Hub id; "" if the model comes from a directory.
        config: Facts by name, such as "index._class_name"; None without any.
    """
    by_id = max(
        ((len(start), family) for family in FAMILIES for start in family.hub_ids if model.startswith(start)),
        key=lambda found: found[0],
        default=None,
    )
    if config is None:
        return Found(by_id[1], "its Hub id") if by_id else None
    rows = [family for family in FAMILIES if family.pipeline == config["index._class_name"]]
    for family in rows:
        if family.facts and all(config.get(name) == value for name, value in family.facts.items()):
            return Found(family, f"its class and {', '.join(family.facts)}")
    if by_id and by_id[1] in rows:
        return Found(by_id[1], "its class and Hub id")
    if not rows:
        return None
    default = next((family for family in rows if not family.facts), rows[-1])
    return Found(
        default, "its class" if len(rows) == 1 else f"its class {default.pipeline} alone, whose defaults it takes"
    )


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
        defaults = defaults_of(family, read_model_config(recipe))
        recipe = replace(recipe, **{name: value for name, value in defaults.items() if name not in kept})
    in_force = family.ignored(recipe)
    for name in in_force:
        if name in given:
            raise UserError(_refusal(family, name, getattr(recipe, name)))
    not_applied = ", ".join(f"{name} {getattr(recipe, name)!r}" for name in in_force)
    return replace(recipe, **in_force, not_applied=not_applied or recipe.not_applied)


def defaults_of(family: Family, config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns a family's defaults by field of the recipe; the model's configuration decides the size if it says one."""
    size = (config or {}).get("sample_size") or family.size
    return {
        "width": size,
        "height": size,
        "num_inference_steps": family.num_inference_steps,
        "guidance_scale": family.guidance_scale,
        "dtype": family.dtype,
    }


def _refusal(family: Family, name: str, value: Any) -> str:
    option = f"--{name.replace('_', '-')}"
    if name == "guidance_scale":
        return f"{option} {value:g} changes nothing, because {family.name} ignores guidance; leave it out"
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
    found = family_of(recipe)
    scheduler = recipe.scheduler or "the model's own scheduler"
    settings = (
        f"{recipe.width}x{recipe.height}, {recipe.num_inference_steps} steps of {scheduler}, guidance "
        f"{recipe.guidance_scale:g}, {recipe.dtype}"
    )
    if found is None:
        return [f"model {recipe.model}: its configuration cannot be read, so its family is not known; {settings}"]
    lines = [f"model {recipe.model}: {found.family.name}, found by {found.reason}", f"settings: {settings}"]
    if recipe.not_applied:
        lines.append(f"not applied, because {found.family.name} ignores it: {recipe.not_applied}")
    if found.family.max_batch_size == 1:
        lines.append("batches of one image, because its bytes would depend on its neighbors")
    return lines
