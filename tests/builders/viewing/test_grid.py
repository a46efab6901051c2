from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from builders.engines import diffusion
from builders.engines.base import Generate, GeneratedImage
from builders.errors import UserError
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
from builders.recipes.sample import Sample
from builders.viewing.grid import TILE, draw_grid


def test_grid__has_a_column_per_guidance_and_a_row_per_step_count(generated: Recipe) -> None:
    small = draw_grid(generated, "n02", 5, [1.0, 2.0, 3.0], [1, 2])
    wide = draw_grid(generated, "n02", 5, [1.0, 2.0, 3.0, 7.5], [1, 2])
    tall = draw_grid(generated, "n02", 5, [1.0, 2.0, 3.0], [1, 2, 3])
    assert wide.height == small.height and wide.width - small.width >= TILE
    assert tall.width == small.width and tall.height - small.height >= TILE


def test_grid__shows_what_the_engine_generates(generated: Recipe) -> None:
    grid = np.asarray(draw_grid(generated, "n02", 5, [2.0], [2]).convert("RGB")).astype(int)
    alone = replace(generated, guidance_scale=2.0, num_inference_steps=2)
    (image,) = diffusion.load(alone, Execution(batch_size=1))([replace(Plan(generated, 1).sample(1, 0), seed=5)])
    assert isinstance(image.image, np.ndarray)
    tile = grid[-12 - TILE : -12, -12 - TILE : -12]
    assert tile.reshape(16, 10, 16, 10, 3).mean((1, 3)) == pytest.approx(image.image.astype(float), abs=30)


def test_grid__the_seed_chooses_the_background(generated: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = replace(generated, prompt="{c} inside {b}", scenes=("beach", "desert/sand", "forest/broadleaf", "bar"))
    prompts: list[str] = []
    load = diffusion.load

    class Spy:
        environment: dict[str, str] = {}

        def __init__(self, generate: Generate) -> None:
            self.generate = generate

        def __call__(self, samples: Sequence[Sample]) -> list[GeneratedImage]:
            prompts.extend(sample.prompt for sample in samples)
            return self.generate(samples)

    def spy(recipe: Recipe, execution: Execution) -> Generate:
        return Spy(load(recipe, execution))

    monkeypatch.setattr(diffusion, "load", spy)
    for seed in range(12):
        draw_grid(inside, "n02", seed, [2.0], [1])
    assert len(set(prompts)) == 4


def test_grid__mistakes_are_reported(generated: Recipe) -> None:
    with pytest.raises(UserError, match="has no class 'n09'"):
        draw_grid(generated, "n09", 5, [2.0], [2])
    with pytest.raises(UserError, match="at least one each"):
        draw_grid(generated, "n02", 5, [], [2])
