"""Tests of the ImageNet builders and `custom_sd`, as far as they run without their large model."""

from pathlib import Path

import pytest

from builders.classes.imagenet import read_imagenet100_wnids, read_parents
from builders.clone_builder import CloneBuilder
from builders.custom_sd import CustomSD
from builders.imagenet_1k_sd import ImageNet1KSD
from builders.imagenet_100_sd import ImageNet100SD
from builders.planning.plan import Plan
from builders.recipes.prompts import TEMPLATES
from tests.tiny_families import write_tiny_family
from tests.tiny_pipeline import write_tiny_pipeline


@pytest.mark.parametrize("builder", [ImageNet100SD, ImageNet1KSD, CustomSD])
def test_imagenet_sd__recipes_have_every_prompt_of_the_paper_at_both_guidance_scales(
    builder: type[CloneBuilder],
) -> None:
    recipes = list(builder.RECIPES.values())
    assert {(r.prompt, r.guidance_scale) for r in recipes} == {(t, g) for t in TEMPLATES.values() for g in (7.5, 2.0)}
    assert {(r.model, r.scheduler, r.num_inference_steps, r.width, r.height, r.image_quality) for r in recipes} == {
        ("CompVis/stable-diffusion-v1-4", "PNDMScheduler", 50, 512, 384, 95)
    }


def test_imagenet_sd__labels_follow_the_sorted_wnids() -> None:
    assert ImageNet100SD.recipe("c_cfg2").label_names == sorted(read_imagenet100_wnids())
    assert ImageNet1KSD.recipe("c_cfg2").label_names == sorted(read_parents())


def test_imagenet_sd__scales_give_the_sizes_of_the_paper(tmp_path: Path) -> None:
    recipe = ImageNet100SD.recipe("c_cfg2")
    assert [Plan(recipe, recipe.rounds(scale=scale)).num_samples for scale in (0.1, 1, 50)] == [
        13_000,
        130_000,
        6_500_000,
    ]


def test_imagenet_sd__prompts_are_those_of_the_paper() -> None:
    wnid = "n02086240"
    prompts = {}
    for config in TEMPLATES:
        recipe = ImageNet1KSD.recipe(f"{config}_cfg2")
        prompts[config] = Plan(recipe, 1).sample(recipe.label_names.index(wnid), 0)
    assert prompts["c"].prompt == "Shih-Tzu"
    assert prompts["c_h"].prompt == "Shih-Tzu, toy dog"
    assert prompts["c_d"].prompt.startswith("Shih-Tzu, a Chinese breed")
    assert prompts["c_h_inside_b"].prompt.startswith("Shih-Tzu, toy dog inside ") and prompts["c_h_inside_b"].background
    assert len({sample.seed for sample in prompts.values()}) == 1


def test_imagenet_sd__a_tiny_model_makes_a_clone(tmp_path: Path) -> None:
    import datasets

    write_tiny_family("Stable Diffusion XL", tmp_path / "sdxl")
    builder = ImageNet100SD(
        "c_h_inside_b_cfg2", images_per_class=1, model=str(tmp_path / "sdxl"), width=16, height=16, num_inference_steps=1,
        shard_size=40, batch_size=20, cache_dir=str(tmp_path / "cache"), image_format="png",
    )  # fmt: skip
    manifest = builder.materialize(tmp_path / "clone")
    assert (
        manifest is not None
        and manifest.num_samples == 100
        and manifest.recipe["scheduler"] == "EulerDiscreteScheduler"
    )
    loaded = datasets.load_dataset(str(tmp_path / "clone"), split="train", cache_dir=str(tmp_path / "cache"))
    assert sorted(loaded["cls"]) == list(range(100)) and loaded[0]["json"]["dtype"] == "float16"


def test_imagenet_sd__counts_and_options_reach_the_builder(tmp_path: Path) -> None:
    counts = tmp_path / "counts.csv"
    counts.write_text("\n".join(f"{wnid},{7 + number % 3}" for number, wnid in enumerate(read_imagenet100_wnids())))
    write_tiny_pipeline(tmp_path / "sd")
    builder = ImageNet100SD(
        "c_h_cfg2", model=str(tmp_path / "sd"), counts=str(counts), hypernym_lemmas="all", cache_dir=str(tmp_path)
    )
    found = dict(zip(builder.plan.recipe.label_names, builder.plan.class_counts().tolist(), strict=True))
    assert found == {wnid: 7 + number % 3 for number, wnid in enumerate(read_imagenet100_wnids())}
    assert "toy dog, toy" in {entry.hypernym for entry in builder.plan.recipe.classes}
