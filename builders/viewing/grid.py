"""Draws one class and one seed over guidance scales and step counts, as one labeled image: Fig. 5 of the paper."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from builders.engines.base import engine, in_force
from builders.errors import UserError, suggest
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
from builders.recipes.sample import Sample

SEED = 1947262
"""Seed of the paper's figure."""
GAP = 12
TILE = 160
"""Width in pixels to which every image is resized."""
FONT_SIZE = 16


def draw_grid(
    recipe: Recipe, class_id: str, seed: int, guidance_scales: Sequence[float], step_counts: Sequence[int]
) -> Image.Image:
    """Draws a row per step count and a column per guidance scale. Each image is generated in a batch of its own.

    Raises:
        UserError: a list is empty, the recipe has no such class or real images, or the model refuses the settings.
    """
    if not guidance_scales or not step_counts:
        raise UserError("a grid needs a guidance scale and a step count; give --guidance and --steps at least one each")
    sample = _sample(recipe, class_id, seed)
    # A model that ignores guidance has one column.
    guidance_scales = list(dict.fromkeys(in_force(recipe, scale).guidance_scale for scale in guidance_scales))
    rows = [
        [_generate(recipe, sample, guidance_scale, num_steps) for guidance_scale in guidance_scales]
        for num_steps in step_counts
    ]
    title = f'"{sample.prompt}", seed {seed}, {recipe.model}'
    return _compose(
        title, rows, [f"guidance {scale:g}" for scale in guidance_scales], [f"{n} steps" for n in step_counts]
    )


def _sample(recipe: Recipe, class_id: str, seed: int) -> Sample:
    if not engine(recipe.engine).IS_SYNTHETIC:
        raise UserError(f"'{recipe.name}' holds real images; a grid needs a recipe that generates its images")
    ids = recipe.label_names
    if class_id not in ids:
        raise UserError(f"'{recipe.name}' has no class '{class_id}'; {suggest(class_id, ids)}")
    return Plan(recipe, 1).sample_with_seed(ids.index(class_id), 0, 0, seed)


def _generate(recipe: Recipe, sample: Sample, guidance_scale: float, num_steps: int) -> Image.Image:
    changed = replace(in_force(recipe, guidance_scale), num_inference_steps=num_steps, safety="off")
    return Image.fromarray(np.asarray(engine(recipe.engine).load(changed, Execution(batch_size=1))([sample])[0].image))


def _compose(title: str, rows: list[list[Image.Image]], columns: list[str], lines: list[str]) -> Image.Image:
    font = ImageFont.load_default(size=FONT_SIZE)
    width, height = rows[0][0].size
    tile = (TILE, max(1, round(TILE * height / width)))
    left = 2 * GAP + max(int(font.getlength(line)) for line in lines)
    top = 2 * (FONT_SIZE + GAP) + GAP
    canvas = (
        max(left + len(columns) * (tile[0] + GAP), 2 * GAP + int(font.getlength(title))),
        top + len(rows) * (tile[1] + GAP),
    )
    grid = Image.new("RGB", canvas, "white")
    draw = ImageDraw.Draw(grid)
    draw.text((GAP, GAP), title, fill="black", font=font)
    for column, label in enumerate(columns):
        draw.text((left + column * (tile[0] + GAP), GAP + FONT_SIZE + GAP), label, fill="black", font=font)
    for number, (label, row) in enumerate(zip(lines, rows, strict=True)):
        y = top + number * (tile[1] + GAP)
        draw.text((GAP, y + (tile[1] - FONT_SIZE) // 2), label, fill="black", font=font)
        for column, image in enumerate(row):
            grid.paste(image.resize(tile, Image.Resampling.BICUBIC), (left + column * (tile[0] + GAP), y))
    return grid
