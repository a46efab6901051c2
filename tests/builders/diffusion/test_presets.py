"""Presets: each fills in fields of the recipe, and is refused where the model has none of that name."""

from dataclasses import replace
from pathlib import Path

import pytest

from builders.cli.main import main
from builders.diffusion.families import FAMILIES
from builders.diffusion.presets import PRESETS, fitting_presets, preset_settings
from builders.digits_sd import DigitsSD
from builders.engines import diffusion
from builders.engines.base import complete_recipe, pin_model
from builders.errors import UserError
from builders.imagenet_1k_sd import ImageNet1KSD
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
from tests.in_process import call
from tests.tiny_families import TINY, write_tiny_family

FITTING = {
    "Stable Diffusion 1.x": ["dpm8"],  # the tiny one is too narrow for lcm4
    "Stable Diffusion 2.x with v-prediction": ["dpm8"],
    "Stable Diffusion XL": ["dpm8", "lcm4"],
    "SD Turbo": ["turbo1"],
    "SDXL Turbo": ["turbo1"],
    "Flux schnell": ["schnell4"],
}


@pytest.mark.parametrize("name", TINY)
def test_presets__fit_their_families_alone(name: str, recipe: Recipe, tmp_path: Path) -> None:
    tiny = replace(recipe, model=str(write_tiny_family(name, tmp_path / "tiny")))
    assert fitting_presets(tiny) == FITTING.get(name, [])


def test_presets__name_families_of_the_table() -> None:
    families = {family.name for family in FAMILIES}
    assert {name for presets in PRESETS.values() for preset in presets for name in preset.families} <= families


def test_presets__fill_in_the_recipe_and_single_options_count_more() -> None:
    plain, dpm8 = DigitsSD.recipe("c_cfg2"), DigitsSD.recipe("c_cfg2", preset="dpm8")
    assert dpm8 == replace(plain, num_inference_steps=8)
    assert DigitsSD.recipe("c_cfg2", preset="dpm8", num_inference_steps=10).num_inference_steps == 10
    assert DigitsSD.recipe("c_cfg2", preset="dpm8").hash != plain.hash


def test_presets__lcm4_takes_an_adapter_from_the_hub_and_no_guidance(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"index._class_name": "StableDiffusionPipeline", "denoiser.cross_attention_dim": 768}
    monkeypatch.setattr("builders.diffusion.presets.read_model_config", lambda recipe: facts)
    recipe = ImageNet1KSD.recipe("c_cfg2", preset="lcm4")
    assert (recipe.num_inference_steps, recipe.guidance_scale, recipe.scheduler) == (4, 1, "LCMScheduler")
    assert recipe.adapters == ("latent-consistency/lcm-lora-sdv1-5=1",)


def test_presets__settings_of_every_preset_generate_images(recipe: Recipe, tmp_path: Path) -> None:
    """Adapters are left out: those of presets lie on the Hub."""
    for name, preset in (("Stable Diffusion XL", "dpm8"), ("Stable Diffusion XL", "lcm4"), ("SDXL Turbo", "turbo1"),
                         ("Flux schnell", "schnell4")):  # fmt: skip
        model = str(write_tiny_family(name, tmp_path / f"{name}-{preset}"))
        settings = {**preset_settings(replace(recipe, model=model), preset), "adapters": ()}
        given = {"model": model, "width": 32, "height": 32, "dtype": "float32", "safety": "off", **settings}
        pinned = pin_model(complete_recipe(replace(recipe, model="other"), given))
        samples = Plan(pinned, 6).shard_samples(0)[:2]
        images = diffusion.load(pinned, Execution(batch_size=2))(samples)
        assert len(images) == 2 and not any(image.is_broken for image in images)


def test_presets__listing_them_asks_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda *arguments, **options: pytest.fail("the Hub was asked")
    )
    assert fitting_presets(ImageNet1KSD.recipe("c_cfg2")) == ["dpm8", "lcm4"]
    with pytest.raises(UserError, match="preset 'turbo1' does not fit 'CompVis/stable-diffusion-v1-4'"):
        ImageNet1KSD.recipe("c_cfg2", preset="turbo1")


def test_presets__an_adapter_of_the_user_comes_beside_that_of_the_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"index._class_name": "StableDiffusionPipeline", "denoiser.cross_attention_dim": 768}
    monkeypatch.setattr("builders.diffusion.presets.read_model_config", lambda recipe: facts)
    recipe = ImageNet1KSD.recipe("c_cfg2", preset="lcm4", adapters=("me/style=0.5",))
    assert recipe.adapters == ("latent-consistency/lcm-lora-sdv1-5=1", "me/style=0.5")


def test_presets__plan_shows_them_and_mistakes_are_one_sentence(tmp_path: Path) -> None:
    shown = call(main, "plan", "digits_sd/c_cfg2", "--preset", "dpm8")
    assert "8 steps of DPMSolverMultistepScheduler" in shown.stdout and "presets of this model: dpm8\n" in shown.stdout
    for arguments, sentence in (
        (("digits_sd/c_cfg2", "--preset", "lcm4"), "preset 'lcm4' does not fit 'fakeit/digits-sd'; choose from dpm8"),
        (("digits_sd/c_cfg2", "--preset", "dpm9"), "unknown preset 'dpm9'; did you mean dpm8?"),
        (
            ("real_images/train", "--preset", "dpm8", "--source", tmp_path),
            "is for models, and 'real_images/train' has none",
        ),
    ):
        ended = call(main, "plan", *arguments)
        assert ended.returncode == 2 and sentence in ended.stderr and "Traceback" not in ended.stderr, ended
