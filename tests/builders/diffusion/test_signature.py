"""Tests pipelines that are not in the table of families."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders.diffusion.family_defaults import family_of
from builders.diffusion.signature import _family
from builders.engines import diffusion
from builders.engines.base import limit_batch_size, pin_model
from builders.errors import UserError
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
from tests.tiny_pipeline import stable_diffusion


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
