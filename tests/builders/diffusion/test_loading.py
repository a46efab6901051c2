import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from builders.diffusion.loading import device, load_check, load_pipeline
from builders.engines.base import pin_model
from builders.errors import UserError
from builders.recipes.recipe import Recipe
from tests.conftest import EXECUTION
from tests.tiny_families import write_tiny_family
from tests.tiny_pipeline import example_images


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("family", ["Stable Diffusion 1.x", "Stable Diffusion 3.x", "Flux dev"])
def test_loading__all_modules_have_the_dtype(recipe: Recipe, tmp_path: Path, family: str, dtype: str) -> None:
    write_tiny_family(family, tmp_path / family)
    pipeline = load_pipeline(
        pin_model(replace(recipe, model=str(tmp_path / family), scheduler="", dtype=dtype)),
        replace(EXECUTION, vae_slicing=True),
    )
    modules = [module for module in pipeline.components.values() if hasattr(module, "parameters")]
    others = {n for module in modules for n, p in module.named_parameters() if str(p.dtype) != f"torch.{dtype}"}
    assert all(".wo." in name for name in others)  # T5 keeps these in 32 bits, because they overflow
    assert pipeline.vae.use_slicing


def test_loading__recipes_share_a_pipeline_and_keep_their_schedulers(generated: Recipe) -> None:
    plain = load_pipeline(generated, EXECUTION)
    config = dict(plain.scheduler.config)
    other = load_pipeline(replace(generated, scheduler="DDIMScheduler", guidance_scale=1.0), EXECUTION)
    assert other is plain and type(plain.scheduler).__name__ == "DDIMScheduler"
    assert dict(load_pipeline(generated, EXECUTION).scheduler.config) == config


def test_loading__pickled_weights_are_refused(generated: Recipe, tiny_pipeline: Path, tmp_path: Path) -> None:
    import torch

    shutil.copytree(tiny_pipeline, tmp_path / "model")
    (weights,) = (tmp_path / "model/unet").glob("*.safetensors")
    weights.unlink()
    torch.save({}, tmp_path / "model/unet/diffusion_pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_pipeline(replace(generated, model_dir=str(tmp_path / "model")), EXECUTION)


def test_loading__a_pipeline_without_text_input_is_refused(generated: Recipe, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(
        json.dumps({"_class_name": "DDPMPipeline", "_diffusers_version": "0.42.1"})
    )
    with pytest.raises(UserError, match=r"cannot be loaded.*text-to-image pipeline with safetensors"):
        load_pipeline(replace(generated, model_dir=str(tmp_path)), EXECUTION)


def test_loading__verdicts_equal_those_of_the_built_in_checker(recipe: Recipe, checked_pipeline: Path) -> None:
    from diffusers import StableDiffusionPipeline

    pinned = pin_model(replace(recipe, model=str(checked_pipeline)))
    check = load_check(pinned, EXECUTION)
    assert check is not None
    images = example_images(checked_pipeline)
    before = images.copy()
    verdicts = check(images)
    built_in = StableDiffusionPipeline.from_pretrained(checked_pipeline)
    _, expected = built_in.run_safety_checker(images / 255.0, "cpu", built_in.dtype)
    assert verdicts == [int(flag) for flag in expected]
    assert 20 <= sum(verdicts) <= 40
    assert np.array_equal(images, before)


def test_loading__the_checker_follows_the_recipe(generated: Recipe, recipe: Recipe, checked_pipeline: Path) -> None:
    checked = pin_model(replace(recipe, model=str(checked_pipeline)))
    assert load_check(replace(checked, safety="off"), EXECUTION) is None
    assert load_check(generated, EXECUTION) is None
    with pytest.raises(UserError, match="has no safety checker, which drop needs"):
        load_check(replace(generated, safety="drop"), EXECUTION)


def test_loading__an_apple_gpu_is_not_used_and_a_warning_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    device.cache_clear()
    try:
        with pytest.warns(UserWarning, match="generated on the CPU: this machine has an Apple GPU"):
            assert device().type == "cpu"
    finally:
        device.cache_clear()
