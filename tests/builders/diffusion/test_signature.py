"""Tests pipelines that are not in the table of families."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders.diffusion.family_defaults import family_of
from builders.diffusion.sampling import Sampler
from builders.diffusion.signature import _family
from builders.engines import diffusion
from builders.engines.base import complete_recipe, limit_batch_size, pin_model
from builders.errors import UserError
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
from tests.tiny_pipeline import stable_diffusion, t5, t5_tokenizer


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a pipeline whose class is not in the table: a latent consistency model with random weights."""
    import torch
    from diffusers import LatentConsistencyModelPipeline, LCMScheduler

    torch.manual_seed(0)
    modules = stable_diffusion(time_cond_proj_dim=8).components
    modules["scheduler"] = LCMScheduler(beta_schedule="scaled_linear")
    out = tmp_path_factory.mktemp("other") / "lcm"
    LatentConsistencyModelPipeline(**modules, requires_safety_checker=False).save_pretrained(out)
    return Path(out)


def test_signature__another_class_is_called_as_its_signature_says(recipe: Recipe, other: Path) -> None:
    chosen = replace(recipe, model=str(other), scheduler="", name="test/c")
    found = family_of(chosen)
    assert found and "which is not in the table" in found.reason and found.family.max_batch_size == 1
    completed = diffusion.complete(chosen, is_other_model=True, given=[])
    assert (completed.width, completed.num_inference_steps, completed.guidance_scale) == (16, 4, 8.5)
    pinned = pin_model(completed)
    execution = limit_batch_size(pinned, Execution(batch_size=4), is_given=False)
    assert execution.batch_size == 1
    run = diffusion.load(pinned, execution)
    samples = Plan(pinned, 6).shard_samples(0)[:2]
    images = [np.asarray(run([sample])[0].image) for sample in samples]
    assert images[0].shape == (16, 16, 3) and not np.array_equal(images[0], images[1])
    with pytest.raises(UserError, match=r"--batch-size 4 would make an image of .* depend on its neighbors"):
        limit_batch_size(pinned, Execution(batch_size=4), is_given=True)


@pytest.mark.parametrize(
    ("pipeline", "words"),
    [
        ("DDPMPipeline", "is a DDPMPipeline, which is not in the table of families, and its call has no prompt"),
        ("StableDiffusionUpscalePipeline", "its call has no width"),
        ("StableDiffusionInpaintPipeline", "its call needs image"),
        ("WanPipeline", "its call needs num_frames"),
        ("NoSuchPipeline", "which this version of diffusers does not have; install a newer one"),
    ],
)
def test_signature__a_class_that_does_not_say_enough_is_refused(
    recipe: Recipe, tmp_path: Path, pipeline: str, words: str
) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    with pytest.raises(UserError, match=words):
        family_of(replace(recipe, model=str(tmp_path)))


def test_signature__what_it_needs_and_what_it_ignores() -> None:
    class NeedsImage:
        def __call__(
            self,
            image: Any,
            prompt: str,
            width: int,
            height: int,
            generator: Any,
            num_inference_steps: int,
            output_type: str,
        ) -> None: ...

    class Plain:
        def __call__(
            self,
            prompt: str,
            width: int = 64,
            height: int = 64,
            generator: Any = None,
            num_inference_steps: int = 8,
            output_type: str = "pil",
        ) -> None: ...

    with pytest.raises(UserError, match="its call needs image"):
        _family("m", NeedsImage, {"sample_size": 64})
    family = _family("m", Plain, {})
    assert (family.size, family.num_inference_steps, family.guidance, family.negative_prompt) == (64, 8, "", "no")
    assert family.ignored(Recipe(name="a/b", guidance_scale=2.0, negative_prompt="x")) == {
        "guidance_scale": 1.0,
        "negative_prompt": "",
    }


@pytest.mark.long
def test_signature__a_pipeline_that_scales_its_images_itself_gives_the_same_pixels(
    recipe: Recipe, tmp_path: Path
) -> None:
    """Kandinsky 3 returns tensors without scaling them."""
    import torch
    from diffusers import DDPMScheduler, Kandinsky3Pipeline, Kandinsky3UNet, VQModel

    tokenizer = t5_tokenizer()
    encoder = t5(tokenizer)
    unet = Kandinsky3UNet(
        time_embedding_dim=4, attention_head_dim=4, groups=2, block_out_channels=(32, 64), cross_attention_dim=4,
        encoder_hid_dim=encoder.config.d_model,
    )  # fmt: skip
    movq = VQModel(
        block_out_channels=[32] * 4, down_block_types=["DownEncoderBlock2D"] * 4, latent_channels=4, norm_num_groups=8,
        norm_type="spatial", num_vq_embeddings=12, up_block_types=["UpDecoderBlock2D"] * 4, vq_embed_dim=4,
    )  # fmt: skip
    Kandinsky3Pipeline(
        tokenizer=tokenizer, text_encoder=encoder, unet=unet, movq=movq, scheduler=DDPMScheduler(steps_offset=1)
    ).save_pretrained(tmp_path / "tiny")
    given = {"model": str(tmp_path / "tiny"), "width": 64, "height": 64, "dtype": "float32", "safety": "off"}
    named = complete_recipe(replace(recipe, model="other"), given)
    sampler = diffusion.load(pin_model(replace(named, num_inference_steps=2)), Execution(batch_size=1))
    assert isinstance(sampler, Sampler)
    sample = Plan(sampler.recipe, 6).sample_at(0)
    image = np.asarray(sampler([sample])[0].image)
    own = sampler.pipeline(
        **sampler.encode([sample.prompt]), generator=[torch.Generator("cpu").manual_seed(sample.seed)], num_inference_steps=2,
        width=64, height=64, guidance_scale=sampler.recipe.guidance_scale, output_type="np",
    ).images  # fmt: skip
    assert np.abs(image.astype(int) - (own[0] * 255).round()).max() <= 1
