import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from builders.diffusion.loading import load_pipeline
from builders.diffusion.pin import pipeline_digest
from builders.diffusion.process import device
from builders.diffusion.safety_checker import load_check
from builders.engines.base import pin_model
from builders.engines.diffusion import load
from builders.errors import UserError
from builders.planning.plan import Plan
from builders.recipes.recipe import Recipe
from tests.conftest import EXECUTION
from tests.ldm_checkpoint import write_ldm_checkpoint
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


def test_loading__a_variant_of_the_weights_is_read(generated: Recipe, tiny_pipeline: Path, tmp_path: Path) -> None:
    import diffusers

    loaded = diffusers.DiffusionPipeline.from_pretrained(tiny_pipeline)
    loaded.save_pretrained(tmp_path / "half", variant="fp16")
    half = pin_model(replace(generated, model=str(tmp_path / "half"), model_dir="", revision="", variant="fp16"))
    weights = load_pipeline(half, EXECUTION).unet.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in loaded.unet.state_dict().items())
    with pytest.raises(UserError, match=r"cannot be loaded .*; its weights are of variant fp16: give --variant fp16"):
        load_pipeline(replace(half, variant=""), EXECUTION)
    with pytest.raises(UserError, match="cannot be loaded"):
        load_pipeline(replace(generated, variant="fp16"), EXECUTION)


def test_loading__a_single_file_gives_the_images_of_its_pipeline(
    generated: Recipe, tiny_pipeline: Path, tmp_path: Path
) -> None:
    checkpoint = write_ldm_checkpoint(tiny_pipeline, tmp_path / "single")
    single = pin_model(replace(generated, model=str(checkpoint), model_dir="", revision=""))
    assert single.model == "model.safetensors" and single.revision != generated.revision
    samples = Plan(generated, 6).shard_samples(0)[:4]
    images = [
        [np.asarray(image.image).tobytes() for image in load(recipe, EXECUTION)(samples)]
        for recipe in (generated, single)
    ]
    assert images[0] == images[1]
    (tmp_path / "single/model_index.json").unlink()
    with pytest.raises(UserError, match=r"is a single-file checkpoint; put its pipeline's model_index.json"):
        pin_model(replace(generated, model=str(checkpoint), model_dir="", revision=""))


def test_loading__pickled_weights_beside_safetensors_are_passed_over(
    generated: Recipe, tiny_pipeline: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_pipeline, tmp_path / "model")
    for folder in ("unet", "vae"):
        (tmp_path / "model" / folder / "diffusion_pytorch_model.bin").write_bytes(b"not a pickle")
    (tmp_path / "model/text_encoder/pytorch_model.bin").write_bytes(b"not a pickle")
    load_pipeline(replace(generated, model_dir=str(tmp_path / "model")), EXECUTION)


def test_loading__the_checker_of_2022_has_the_same_verdicts(
    recipe: Recipe, checked_pipeline: Path, tmp_path: Path
) -> None:
    """Its weights have the names of transformers 4, and a buffer of position ids."""
    shutil.copytree(checked_pipeline, tmp_path / "old")
    path = tmp_path / "old/safety_checker/model.safetensors"
    weights = load_file(path)
    inner = "vision_model.vision_model."
    renamed = {
        name if not name.startswith("vision_model.") or name.startswith(inner) else "vision_model." + name: tensor
        for name, tensor in weights.items()
    }
    positions = next(tensor for name, tensor in renamed.items() if name.endswith("position_embedding.weight"))
    renamed[f"{inner}embeddings.position_ids"] = torch.arange(len(positions))[None]
    assert any(name.startswith(f"{inner}encoder.") for name in renamed)
    save_file(renamed, path, metadata={"format": "pt"})
    images = example_images(checked_pipeline)
    checks = [
        load_check(pin_model(replace(recipe, model=str(model))), EXECUTION)
        for model in (checked_pipeline, tmp_path / "old")
    ]
    assert checks[0] and checks[1] and checks[0](images) == checks[1](images)


def test_loading__a_checker_that_lacks_weights_is_refused(
    recipe: Recipe, checked_pipeline: Path, tmp_path: Path
) -> None:
    shutil.copytree(checked_pipeline, tmp_path / "cut")
    path = tmp_path / "cut/safety_checker/model.safetensors"
    weights = load_file(path)
    del weights["concept_embeds"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"safety checker .* cannot be loaded \(its weights lack concept_embeds\)"):
        load_check(pin_model(replace(recipe, model=str(tmp_path / "cut"))), EXECUTION)


@pytest.mark.parametrize("scheduler", ["FlowMatchEulerDiscreteScheduler", "NoScheduler"])
def test_loading__a_scheduler_of_other_models_is_refused(generated: Recipe, scheduler: str) -> None:
    with pytest.raises(UserError, match=f"unknown scheduler '{scheduler}' for this model"):
        load_pipeline(replace(generated, scheduler=scheduler), EXECUTION)


def test_loading__a_variant_reads_the_checker_too(recipe: Recipe, checked_pipeline: Path, tmp_path: Path) -> None:
    import diffusers

    diffusers.DiffusionPipeline.from_pretrained(checked_pipeline).save_pretrained(tmp_path / "half", variant="fp16")
    half = pin_model(replace(recipe, model=str(tmp_path / "half"), variant="fp16"))
    images = example_images(checked_pipeline)
    checks = [load_check(model, EXECUTION) for model in (half, pin_model(replace(recipe, model=str(checked_pipeline))))]
    assert checks[0] and checks[1] and checks[0](images) == checks[1](images)


def test_loading__other_files_beside_a_checkpoint_do_not_change_its_revision(
    generated: Recipe, tiny_pipeline: Path, tmp_path: Path
) -> None:
    checkpoint = write_ldm_checkpoint(tiny_pipeline, tmp_path / "single")
    single = replace(generated, model=str(checkpoint), model_dir="", revision="")
    revision = pin_model(single).revision
    (tmp_path / "single/preview.json").write_text("{}")
    pipeline_digest.cache_clear()
    assert pin_model(single).revision == revision
    (tmp_path / "single/unet/config.json").write_text("{}")
    pipeline_digest.cache_clear()
    assert pin_model(single).revision != revision
    with pytest.raises(UserError, match="has no variants; leave --variant out"):
        pin_model(replace(single, variant="fp16"))
