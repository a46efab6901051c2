from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from builders.format.errors import UserError
from builders.making.engines import diffusion
from builders.making.engines.base import Generate, GeneratedImage
from builders.making.execution import Execution
from builders.making.plan import Plan
from builders.making.recipe import Recipe
from builders.making.sample import Sample
from builders.showing.grid import TILE, draw_grid


def test_grid__has_a_column_per_guidance_and_a_row_per_step_count(painted: Recipe) -> None:
    small = draw_grid(painted, "n02", 5, [1.0, 2.0, 3.0], [1, 2])
    wide = draw_grid(painted, "n02", 5, [1.0, 2.0, 3.0, 7.5], [1, 2])
    tall = draw_grid(painted, "n02", 5, [1.0, 2.0, 3.0], [1, 2, 3])
    assert wide.height == small.height and wide.width - small.width >= TILE
    assert tall.width == small.width and tall.height - small.height >= TILE


def test_grid__shows_what_the_engine_paints(painted: Recipe) -> None:
    grid = np.asarray(draw_grid(painted, "n02", 5, [2.0], [2]).convert("RGB")).astype(int)
    alone = replace(painted, guidance_scale=2.0, num_inference_steps=2)
    (picture,) = diffusion.load(alone, Execution(batch_size=1))([replace(Plan(painted, 1).sample(1, 0), seed=5)])
    assert isinstance(picture.image, np.ndarray)
    tile = grid[-12 - TILE : -12, -12 - TILE : -12]
    assert tile.reshape(16, 10, 16, 10, 3).mean((1, 3)) == pytest.approx(picture.image.astype(float), abs=30)


def test_grid__the_seed_draws_the_background(painted: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = replace(painted, prompt="{c} inside {b}", scenes=("beach", "desert/sand", "forest/broadleaf", "bar"))
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


def test_grid__mistakes_are_told(painted: Recipe) -> None:
    with pytest.raises(UserError, match="has no class 'n09'"):
        draw_grid(painted, "n09", 5, [2.0], [2])
    with pytest.raises(UserError, match="at least one each"):
        draw_grid(painted, "n02", 5, [], [2])
