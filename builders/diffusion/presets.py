"""Presets: sets of settings that belong together, by one name. A preset only fills in fields of the recipe.

A new preset is an entry of `PRESETS`. benchmarks/results/ has what each is worth on the embedded model (docs/speed.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from builders.diffusion.family_defaults import Found, family_of
from builders.diffusion.model_config import read_model_config
from builders.diffusion.pin import model_directory
from builders.errors import UserError, suggest
from builders.recipes.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Preset:
    families: tuple[str, ...]
    """Names of the families that it fits."""
    settings: Mapping[str, Any]
    """Fields of the recipe."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Values in the model's configuration that it needs besides."""


SD_1, SD_V, SDXL = "Stable Diffusion 1.x", "Stable Diffusion 2.x with v-prediction", "Stable Diffusion XL"
LCM = {"scheduler": "LCMScheduler", "num_inference_steps": 4, "guidance_scale": 1.0}
PRESETS: dict[str, tuple[Preset, ...]] = {
    "dpm8": (
        Preset(
            families=(SD_1, SD_V, SDXL),
            settings={"scheduler": "DPMSolverMultistepScheduler", "num_inference_steps": 8},
        ),
    ),
    "lcm4": (
        Preset(
            families=(SD_1,),
            settings={**LCM, "adapters": ("latent-consistency/lcm-lora-sdv1-5",)},
            facts={"denoiser.cross_attention_dim": 768},
        ),
        Preset(families=(SDXL,), settings={**LCM, "adapters": ("latent-consistency/lcm-lora-sdxl",)}),
    ),
    "turbo1": (
        Preset(families=("SD Turbo", "SDXL Turbo"), settings={"num_inference_steps": 1, "guidance_scale": 1.0}),
    ),
    "schnell4": (Preset(families=("Flux schnell",), settings={"num_inference_steps": 4, "guidance_scale": 1.0}),),
}
"""Presets by name: for each family the settings that fit it."""


def preset_settings(recipe: Recipe, name: str) -> dict[str, Any]:
    """Returns the fields that a preset sets in a recipe of this model.

    Raises:
        UserError: there is no such preset, or it does not fit the model.
    """
    if name not in PRESETS:
        raise UserError(f"unknown preset '{name}'; {suggest(name, list(PRESETS))}")
    if (found := _fitting(recipe, family_of(recipe), name, reads_facts=True)) is None:
        others = fitting_presets(recipe)
        way_out = f"choose from {', '.join(others)}" if others else "leave it out"
        raise UserError(f"preset '{name}' does not fit '{recipe.model}'; {way_out}")
    return dict(found.settings)


def fitting_presets(recipe: Recipe) -> list[str]:
    """Returns the names of the presets that fit a recipe's model, as far as can be said without asking the Hub."""
    family, is_here = family_of(recipe), bool(model_directory(recipe))
    return [name for name in PRESETS if _fitting(recipe, family, name, reads_facts=is_here)]


def _fitting(recipe: Recipe, family: Found | None, name: str, *, reads_facts: bool) -> Preset | None:
    for preset in PRESETS[name]:
        if family and family.family.name in preset.families:
            config = (read_model_config(recipe) or {}) if preset.facts and reads_facts else preset.facts
            if all(config.get(key) == value for key, value in preset.facts.items()):
                return preset
    return None
