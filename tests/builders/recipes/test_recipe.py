import json
from dataclasses import fields, replace
from typing import Any

import pytest

from builders.classes.class_list import ClassEntry
from builders.errors import UserError
from builders.recipes.recipe import NEUTRAL, Recipe, override_recipe, recipe_from_dict

OTHERS: dict[str, Any] = {
    "safety": "drop",
    "name": "x", "engine": "folder", "split": "test", "prompt": "a {c}", "negative_prompt": "x", "model": "x", "revision": "x",
    "scheduler": "x", "num_inference_steps": 3, "guidance_scale": 1.5, "width": 8, "height": 8, "dtype": "float16",
    "image_format": "png", "image_quality": 90, "seed": 5, "shard_size": 7,
    "classes": (ClassEntry(wnid="n9", name="nine"),), "scenes": ("sky",),
}  # fmt: skip


NEWER: dict[str, Any] = {
    "background_color": "black", "true_cfg_scale": 4.0, "variant": "fp16", "guidance_interval": "0:0.5",
    "adapters": ("a/b=1",), "first_step": "base", "checks": ("sharpness:5",), "vae_tiling": True, "quantization": "int8",
    "attention_backend": "flash", "first_block_cache": 0.1, "prompts": "sha256:1", "images_per_prompt": 2,
}  # fmt: skip
SAID = {
    "num_left_out": 3,
    "uses_real": "digits",
    "not_applied": "guidance_scale 2",
    "adapter_licenses": ("mit",),
    "prompts_source": "x",
}


def test_recipe__every_field_that_changes_images_changes_the_hash(recipe: Recipe) -> None:
    assert set(OTHERS) == {field.name for field in fields(Recipe)} - {"model_dir", "paths", *NEUTRAL}
    assert {*NEWER, *SAID} == set(NEUTRAL)
    recipe = replace(recipe, adapters=("any",), prompts="sha256:0")
    hashes = {replace(recipe, **{name: value}).hash for name, value in {**OTHERS, **NEWER}.items()}
    assert len(hashes | {recipe.hash}) == len(OTHERS) + len(NEWER) + 1
    written = replace(recipe, model_dir="/somewhere", paths=(("any=1", "/there"),), **SAID)  # type: ignore[arg-type]
    assert written.hash == recipe.hash and written.to_dict()["uses_real"] == "digits"
    assert "/" not in str(written.to_dict()["adapters"])


def test_recipe__new_fields_change_no_old_hash(recipe: Recipe) -> None:
    """Checks that the hashed fields stay the same; a new field must be in NEUTRAL."""
    assert recipe.to_dict().keys() == set(OTHERS)
    assert recipe.hash == "c50eee366ed3d2d5a2e8e1512b9cf15d87afb665f22a43c059ce3e6133ca5883"


def test_recipe__json_round_trip_keeps_it(recipe: Recipe) -> None:
    assert recipe_from_dict(recipe.to_dict()) == recipe
    newer = replace(recipe, **NEWER)
    assert recipe_from_dict(json.loads(json.dumps(newer.to_dict()))) == newer


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"guidence_scale": 2.0}, "unknown field 'guidence_scale'.*guidance_scale"),
        ({"guidance_scale": "2"}, "guidance_scale is '2'"),
        ({"shard_size": 0}, "shard_size is 0"),
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
        ({"image_format": "gif"}, "unknown image format 'gif'"),
        ({"image_quality": 101}, "image_quality is 101"),
        ({"image_quality": 0}, "image_quality is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**53}, "seed is 9007199254740992"),
        ({"classes": (ClassEntry(wnid="a", name=""),) * 2}, "each listed once"),
        ({"split": "tests"}, "unknown split 'tests'"),
        ({"prompt": "{C}"}, "unknown prompt field"),
        ({"classes": (ClassEntry(wnid="b", name=""), ClassEntry(wnid="a", name=""))}, "sorted"),
        ({"classes": (ClassEntry(wnid="a.b", name=""),)}, "'a.b'"),
        ({"classes": (ClassEntry(wnid="a", name="", base_count=0),)}, "0 images"),
    ],
)
def test_recipe__mistakes_are_reported(recipe: Recipe, overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        override_recipe(recipe, overrides)


def test_recipe__rounds_are_the_images_of_the_largest_class(recipe: Recipe) -> None:
    assert (recipe.rounds(), recipe.rounds(4), recipe.rounds(scale=2.5)) == (6, 4, 15)
    with pytest.raises(UserError, match="both set the length; give one of them"):
        recipe.rounds(4, 2.5)


def test_recipe__none_keeps_a_field_and_an_int_becomes_a_float(recipe: Recipe) -> None:
    changed = override_recipe(recipe, {"seed": None, "guidance_scale": 2})
    assert (changed.seed, changed.guidance_scale, type(changed.guidance_scale)) == (recipe.seed, 2.0, float)
