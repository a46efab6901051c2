"""Guidance in an interval of the timesteps, against full guidance with a scale of nearly 1 outside of the interval."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builders.diffusion.sampling import Sampler
from builders.engines import diffusion
from builders.engines.base import complete_recipe, pin_model
from builders.errors import UserError
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
from tests.tiny_families import write_tiny_family

FAMILIES = ("Stable Diffusion 1.x", "Stable Diffusion XL", "Stable Diffusion 3.x")
STEPS = 10
NOTHING = 1 + 1e-9
"""A scale at which guidance is computed, and changes nothing."""
INTERVALS = ("0:0.5", "0.3:1", "0.2:0.7", "0:0.01", "0.95:1")


@pytest.fixture(
    scope="module", params=[FAMILIES[0], *(pytest.param(name, marks=pytest.mark.long) for name in FAMILIES[1:])]
)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_family(request.param, tmp_path_factory.mktemp("family") / "tiny")


@pytest.fixture
def guided(folder: Path, recipe: Recipe) -> Recipe:
    changed = replace(recipe, model=str(folder), scheduler="", guidance_scale=4.0, num_inference_steps=STEPS)
    return pin_model(replace(changed, safety="off"))


class Counter:
    """Counts the rows that a denoiser gets."""

    def __init__(self, sampler: Sampler) -> None:
        self.rows: list[int] = []
        denoiser = getattr(sampler.pipeline, "unet", None) or sampler.pipeline.transformer
        self.handle = denoiser.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        latents: Any = arguments[0] if arguments else keywords.get("hidden_states", keywords.get("sample"))
        self.rows.append(len(latents))


def generate(recipe: Recipe) -> tuple[np.ndarray[Any, Any], list[int]]:
    """Returns two images (2, height, width, 3), and the rows of each pass through the denoiser."""
    sampler = diffusion.load(recipe, Execution(batch_size=2))
    assert isinstance(sampler, Sampler)
    counter = Counter(sampler)
    samples = Plan(recipe, 6).shard_samples(0)[:2]
    images = np.stack([np.asarray(image.image) for image in sampler(samples)])
    counter.handle.remove()
    return images, counter.rows


def reference(recipe: Recipe, start: float, stop: float) -> np.ndarray[Any, Any]:
    """Returns the images of the pipeline with two passes at every step, whose scale is nearly 1 outside of the interval."""
    sampler = diffusion.load(recipe, Execution(batch_size=2))
    assert isinstance(sampler, Sampler)
    pipeline, samples = sampler.pipeline, Plan(recipe, 6).shard_samples(0)[:2]
    pipeline.scheduler = sampler.scheduler

    def scale(index: int, count: int) -> float:
        return recipe.guidance_scale if start <= index / count < stop else NOTHING

    def change(pipeline: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        pipeline._guidance_scale = scale(index + 1, pipeline.num_timesteps)
        return {}

    with torch.inference_mode():
        images = pipeline(
            **sampler.encode([sample.prompt for sample in samples]),
            generator=[torch.Generator("cpu").manual_seed(sample.seed) for sample in samples],
            **{**sampler.family.call_options(recipe), "guidance_scale": scale(0, STEPS)},
            callback_on_step_end=change,
            output_type="np",
        ).images
    return (images * 255).round()


@pytest.mark.parametrize("interval", INTERVALS)
def test_interval__images_are_those_of_a_scale_of_one_outside(interval: str, guided: Recipe) -> None:
    found, rows = generate(replace(guided, guidance_interval=interval))
    start, stop = map(float, interval.split(":"))
    assert np.abs(found.astype(float) - reference(guided, start, stop)).max() <= 1
    is_guided = [start <= index / len(rows) < stop for index in range(len(rows))]
    assert rows == [4 if guided_here else 2 for guided_here in is_guided]
    whole = generate(guided)[0]
    assert (found != whole).any() or all(is_guided)


def test_interval__the_whole_of_it_changes_neither_bytes_nor_hash(guided: Recipe) -> None:
    whole = replace(guided, guidance_interval="0.0:1.00")
    assert whole.hash == guided.hash and "guidance_interval" not in whole.to_dict()
    assert generate(whole)[0].tobytes() == generate(guided)[0].tobytes()
    limited = replace(guided, guidance_interval="0.20:0.8")
    assert limited.guidance_interval == "0.2:0.8" and limited.hash != guided.hash


def test_interval__the_next_batch_begins_anew(guided: Recipe) -> None:
    recipe = replace(guided, guidance_interval="0.2:0.7")
    sampler = diffusion.load(recipe, Execution(batch_size=2))
    samples = Plan(recipe, 6).shard_samples(0)[:2]
    first, second = ([np.asarray(image.image).tobytes() for image in sampler(samples)] for _ in range(2))
    assert first == second


@pytest.mark.parametrize("text", ["", "1", "0.5:0.5", "0.8:0.2", "-0.1:1", "0:1.1", "a:b", "0:nan", "0:1:2"])
def test_interval__mistakes_are_refused(text: str, recipe: Recipe) -> None:
    with pytest.raises(UserError, match=r"must be START:STOP with 0 <= START < STOP <= 1, such as 0\.2:0\.8"):
        replace(recipe, guidance_interval=text)


def test_interval__without_guidance_it_is_refused_or_noted(guided: Recipe) -> None:
    unguided = replace(guided, guidance_scale=1.0)
    with pytest.raises(UserError, match=r"--guidance-interval 0\.2:0\.8 changes nothing without guidance"):
        complete_recipe(unguided, {"guidance_interval": "0.2:0.8"})
    found = complete_recipe(replace(unguided, guidance_interval="0.2:0.8"), {})
    assert found.guidance_interval == "0:1" and found.not_applied == "guidance_interval '0.2:0.8'"


@pytest.mark.parametrize("name", ["Flux dev", "PixArt-Sigma", "Qwen-Image"])
def test_interval__families_that_decide_once_refuse_it(name: str, recipe: Recipe, tmp_path: Path) -> None:
    model = str(write_tiny_family(name, tmp_path / "tiny"))
    with pytest.raises(UserError, match=f"is not possible with {name}, whose pipeline decides once whether it guides"):
        complete_recipe(recipe, {"model": model, "scheduler": "", "guidance_interval": "0.2:0.8"})
