from dataclasses import replace
from pathlib import Path

import pytest

from builders.digits_sd import DigitsSD
from builders.format.errors import UserError
from builders.format.open_clone import open_clone
from builders.making.prompts import TEMPLATES


def test_clone_builder__digits_has_every_prompt_of_the_paper_at_both_guidances() -> None:
    recipes = [config.recipe for config in DigitsSD.BUILDER_CONFIGS if config.recipe]
    assert {(r.prompt, r.guidance_scale) for r in recipes} == {(t, g) for t in TEMPLATES.values() for g in (7.5, 2.0)}
    assert len({r.name for r in recipes}) == len(recipes) == 12


def test_clone_builder__overrides_are_checked_and_reach_the_recipe() -> None:
    assert DigitsSD.recipe("c_cfg2", num_inference_steps=5).num_inference_steps == 5
    with pytest.raises(UserError, match="unknown field 'materialize'"):
        DigitsSD.recipe("c_cfg2", materialize=1)
    for name in (None, "default", "c_cfg3"):
        with pytest.raises(UserError, match=f"unknown config '{name}' of 'digits_sd'"):
            DigitsSD.recipe(name)


def test_clone_builder__cache_changes_with_recipe_and_length(tmp_path: Path) -> None:
    builders = [DigitsSD("c_cfg2", cache_dir=str(tmp_path), **kw) for kw in ({}, {"seed": 1}, {"images_per_class": 7})]
    assert len({builder.cache_dir for builder in builders}) == 3


def test_clone_builder__embedded_digits_are_made_streamed_and_equal(tmp_path: Path) -> None:
    builder = DigitsSD(
        "c_h_inside_b_cfg2", images_per_class=2, num_inference_steps=2, batch_size=8, cache_dir=str(tmp_path)
    )
    manifest = builder.materialize(tmp_path / "clone")
    clone = open_clone(tmp_path / "clone")
    assert manifest.num_samples == len(clone) == 20
    streamed = {row["__key__"]: row["json"]["sha256"] for row in builder.as_streaming_dataset(split="train")}
    made = clone.metadata(0, ["key", "sha256", "background", "prompt", "scheduler"]).to_pylist()
    assert streamed == {row["key"]: row["sha256"] for row in made}
    assert all(row["background"] and " inside " in row["prompt"] for row in made)
    assert {row["scheduler"] for row in made} == {"PNDMScheduler"}


def test_clone_builder__a_clone_made_from_another_ones_manifest_is_the_same(tmp_path: Path) -> None:
    from builders.clone_builder import make_clone
    from builders.making.catalogue import find_recipe
    from builders.making.models import pin_model
    from builders.making.plan import Plan

    builder = DigitsSD("c_cfg2", images_per_class=1, num_inference_steps=1, cache_dir=str(tmp_path))
    manifest = builder.materialize(tmp_path / "first")
    again = pin_model(find_recipe(str(tmp_path / "first" / "clone.json"), {}))
    assert replace(again, model_dir="").hash == manifest.recipe_hash
    assert make_clone(Plan(again, 1), str(tmp_path / "second")) == manifest
