"""Settings that make a pipeline faster or smaller: each acts where it is taken, and is refused elsewhere."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from builders.cli.main import main
from builders.diffusion.acceleration import denoiser_of
from builders.diffusion.families import FAMILIES
from builders.diffusion.sampling import Sampler
from builders.engines import diffusion
from builders.engines.base import complete_recipe, limit_batch_size, pin_model
from builders.errors import UserError
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
from tests.in_process import call
from tests.tiny_families import TINY, write_tiny_family

FAST = ("Flux dev", "Stable Diffusion 1.x")
SETTINGS: tuple[dict[str, Any], ...] = ({"attention_backend": "native"}, {"first_block_cache": 0.5})
every_family = pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(name, marks=pytest.mark.long) for name in TINY if name not in FAST)]
)


def tiny_recipe(recipe: Recipe, name: str, folder: Path, **settings: Any) -> Recipe:
    model = str(write_tiny_family(name, folder / "tiny"))
    given = {"model": model, "width": 32, "height": 32, "dtype": "float32", "safety": "off", **settings}
    return pin_model(replace(complete_recipe(replace(recipe, model="other"), given), num_inference_steps=6))


def load(recipe: Recipe, **execution: Any) -> Sampler:
    sampler = diffusion.load(recipe, Execution(batch_size=1, **execution))
    assert isinstance(sampler, Sampler)
    return sampler


def image_of(sampler: Sampler, number: int = 0) -> NDArray[np.uint8]:
    return np.asarray(sampler([Plan(sampler.recipe, 6).sample_at(number)])[0].image)


@every_family
def test_acceleration__settings_of_transformers_act_or_are_refused(name: str, recipe: Recipe, tmp_path: Path) -> None:
    (family,) = (family for family in FAMILIES if family.name == name)
    for setting in SETTINGS:
        (field,) = setting
        if field in family.accelerations:
            sampler = load(tiny_recipe(recipe, name, tmp_path, **setting))
            image = image_of(sampler)
            # What one call leaves behind does not change the next one.
            image_of(sampler, 1)
            assert (image_of(sampler) == image).all()
        else:
            with pytest.raises(UserError, match=r"is not possible with .+; leave it out"):
                tiny_recipe(recipe, name, tmp_path, **setting)


def test_acceleration__first_block_cache_skips_blocks_and_takes_one_image_a_batch(
    recipe: Recipe, tmp_path: Path
) -> None:
    plain = tiny_recipe(recipe, "Flux dev", tmp_path)
    cached = replace(plain, first_block_cache=0.5)
    passes, images = {}, {}
    for name, each in (("plain", plain), ("cached", cached)):
        sampler = load(each)
        counts: list[int] = []
        block = denoiser_of(sampler.pipeline).single_transformer_blocks[-1]
        handle = block.norm.register_forward_hook(lambda *arguments, counts=counts: counts.append(1))
        images[name] = image_of(sampler)
        passes[name] = len(counts)
        handle.remove()
    assert passes["plain"] == 6 and 0 < passes["cached"] < 6
    assert (images["plain"] != images["cached"]).any()
    assert limit_batch_size(cached, Execution(batch_size=8), is_given=False).batch_size == 1
    with pytest.raises(
        UserError, match="would make an image of 'tiny' depend on its neighbors; leave it out, or give 1"
    ):
        limit_batch_size(cached, Execution(batch_size=8), is_given=True)


def test_acceleration__an_attention_backend_is_recorded_and_an_unknown_one_refused(
    recipe: Recipe, tmp_path: Path
) -> None:
    named = tiny_recipe(recipe, "Flux dev", tmp_path, attention_backend="_native_math")
    assert load(named).environment["attention"].endswith("(AttentionBackendName._NATIVE_MATH)")
    # Nor does it outlive the model.
    assert load(replace(named, attention_backend="")).environment["attention"].endswith("(default)")
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    assert _AttentionBackendRegistry.get_active_backend()[0].value == "native"
    with pytest.raises(UserError, match=r"attention backend 'none' cannot be used \(.*\); choose another"):
        load(replace(named, attention_backend="none"))


def test_acceleration__tiles_change_images_that_are_larger_than_one(generated: Recipe) -> None:
    large = replace(generated, width=64, height=64)
    plain, tiled = (image_of(load(each)) for each in (large, replace(large, vae_tiling=True)))
    assert (plain != tiled).any() and np.abs(plain.astype(int) - tiled).mean() < 32
    small = [image_of(load(each)) for each in (generated, replace(generated, vae_tiling=True))]
    assert np.array_equal(small[0], small[1])


def test_acceleration__int8_needs_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchao.quantization", None)
    ended = call(main, "make", "digits_sd/c_cfg2", tmp_path / "out", "--images-per-class", 1, "--quantization", "int8")
    assert ended.returncode == 2 and "pip install 'fakeit-sd[int8]'" in ended.stderr, ended
    wrong = call(main, "make", "digits_sd/c_cfg2", tmp_path / "out", "--quantization", "int4")
    assert "unknown quantization 'int4'; give int8, or leave it out" in wrong.stderr


@pytest.mark.long
def test_acceleration__compile_takes_the_repeated_blocks_where_the_model_names_them(generated: Recipe) -> None:
    sampler = load(generated, compile=True)
    blocks = [m for m in sampler.pipeline.unet.modules() if type(m).__name__ == "BasicTransformerBlock"]
    assert blocks and all(block._compiled_call_impl is not None for block in blocks)
    assert sampler.pipeline.unet._compiled_call_impl is None
    difference = np.abs(image_of(sampler).astype(int) - image_of(load(generated)))
    assert difference.max() <= 2


def test_acceleration__plan_and_card_say_what_is_approximate(tmp_path: Path) -> None:
    planned = call(main, "plan", "digits_sd/c_cfg2", "--vae-tiling", "--quantization", "int8")
    assert "images decoded in tiles, denoiser in int8" in planned.stdout, planned
    made = call(main, "make", "digits_sd/c_cfg2", tmp_path / "out", "--images-per-class", 1, "--vae-tiling")
    assert made.returncode == 0
    assert "| computed by approximations | images decoded in tiles |" in (tmp_path / "out/README.md").read_text()
