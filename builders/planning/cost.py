"""What a clone costs before anything is made: operations, hours and dollars; or hours by the measure of a preview.

`cards.tsv` has each card's dense peak with 32-bit sums, in 10^12 operations a second in 16 and in 32 bits, and its price
an hour in Hugging Face Jobs of October 2026, if it is rented out there.
"""

import csv
import json
import math
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from builders.command_line.duration import duration
from builders.engines.base import count_operations
from builders.errors import UserError, suggest
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.recipes.recipe import NEUTRAL, Recipe

SHARE = 0.25
"""Assumed share of a card's peak."""
PUBLISHED_SHARES = (0.15, 0.28)
"""Shares that published runs of Stable Diffusion 1.5 reach, by 803 GFLOP a pass: 0.572 s an image on an H100
(onnxruntime issue 22834), 55 guided steps a second on an A100 (stable-fast issue 2)."""
NO_COST = (
    "name", "split", "prompt", "prompts", "prompts_source", "images_per_prompt", "negative_prompt", "revision",
    "seed", "shard_size", "num_left_out", "uses_real", "not_applied", "adapter_licenses", "classes", "scenes",
    "image_quality", "engine", "background_color",
)  # fmt: skip
"""Fields of a recipe that do not decide how long an image takes."""


@dataclass(frozen=True)
class Card:
    tflops_16: float
    tflops_32: float
    dollars: float | None
    """Price of an hour; None if it is not known."""

    def peak(self, dtype: str) -> float:
        """Operations a second in a floating-point type."""
        return 1e12 * (self.tflops_32 if dtype == "float32" else self.tflops_16)


@cache
def cards() -> dict[str, Card]:
    """Returns the cards by name."""
    with (files("builders.planning") / "cards.tsv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    return {
        row["card"]: Card(
            float(row["tflops_16"]), float(row["tflops_32"]), float(row["dollars"]) if row["dollars"] else None
        )
        for row in rows
    }


def check_card(name: str) -> None:
    """Checks the name of a card.

    Raises:
        UserError: the card is not in the table.
    """
    if name and name not in cards():
        raise UserError(f"unknown card '{name}'; {suggest(name, list(cards()))}, or make a preview and give --measured")


def estimated_cost(plan: Plan, card: str = "") -> list[str]:
    """Returns lines with the operations of an image, and with the hours and dollars of a plan.

    Args:
        card: Name of a card; "" for all of the table.

    Raises:
        UserError: the model's operations cannot be counted.
    """
    check_card(card)
    operations, recipe = count_operations(plan.recipe), plan.recipe
    image, unit = operations.image, _unit(operations.image.total)
    lines = [
        f"operations an image: {_number(image.total, unit)} ({_number(image.total - image.attention, unit)} without the "
        f"products of attention): {operations.num_passes} passes of the denoiser for {operations.num_timesteps} timesteps, "
        f"{_number(operations.denoiser.total)} each ({_number(operations.denoiser.total - operations.denoiser.attention)}), "
        f"and {_number(operations.decoder.total)} to decode; prompts are not counted"
    ]
    low, high = PUBLISHED_SHARES
    for name in [card] if card else cards():
        found = cards()[name]
        hours = plan.num_samples * image.total / found.peak(recipe.dtype) / 3600
        price = (
            "" if found.dollars is None else f", ${hours / SHARE * found.dollars:,.2f} at ${found.dollars:.2f} an hour"
        )
        lines.append(
            f"on {name}: {_hours(hours / SHARE)} at {SHARE:.0%} of its peak in {recipe.dtype}{price}; "
            f"{_hours(hours / high)} to {_hours(hours / low)} at {high:.0%} to {low:.0%}"
        )
    return lines


def measured_cost(plan: Plan, path: Path, execution: Execution) -> list[str]:
    """Returns lines with the time that a plan takes on the machine of a preview, with one worker.

    Raises:
        UserError: the file is no preview.json, or the preview was made with settings that take another time.
    """
    preview = _read_preview(path)
    if difference := _first_difference(preview["recipe"], plan.recipe):
        name, there, here = difference
        raise UserError(
            f"'{path}' was made with {name} {there!r}, and this recipe has {here!r}; make a preview of this recipe"
        )
    if preview["execution"] != asdict(execution):
        raise UserError(
            f"'{path}' was made with {preview['execution']}, not {asdict(execution)}; give the same options"
        )
    seconds = preview["seconds_to_start"] + num_batches(plan, execution.batch_size) * preview["seconds_per_batch"]
    return [
        f"on {preview['environment'].get('device', 'that machine')}, as measured by {path} with one worker: "
        f"{duration(seconds)} for {plan.num_samples:,} images in batches of {execution.batch_size}"
    ]


def num_batches(plan: Plan, batch_size: int) -> int:
    """Returns the number of batches of a plan; the last one of each shard is padded to the full size."""
    whole = math.ceil(plan.shard_length(0) / batch_size)
    return (plan.num_shards - 1) * whole + math.ceil(plan.shard_length(plan.num_shards - 1) / batch_size)


def _read_preview(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        for name in ("recipe", "execution", "environment", "seconds_to_start", "seconds_per_batch"):
            found[name]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"'{path}' is no preview.json ({error}); make one with fakeit-build make … --preview 20"
        ) from None
    return dict(found)


def _first_difference(preview: dict[str, Any], recipe: Recipe) -> tuple[str, Any, Any] | None:
    """Returns the first field that decides how long an image takes and differs, and its values there and here."""
    here = recipe.to_dict()
    for name in sorted({*preview, *here} - {*NO_COST}):
        values = (preview.get(name, NEUTRAL.get(name)), here.get(name, NEUTRAL.get(name)))
        if json.dumps(values[0]) != json.dumps(values[1]):
            return name, *values
    return None


def _unit(number: float) -> tuple[float, str]:
    return next(((size, name) for size, name in ((1e12, "TFLOP"), (1e9, "GFLOP")) if number >= size), (1e6, "MFLOP"))


def _number(number: float, unit: tuple[float, str] | None = None) -> str:
    size, name = unit or _unit(number)
    scaled = number / size
    return f"{scaled:,.0f} {name}" if scaled >= 100 else f"{scaled:.3g} {name}"


def _hours(hours: float) -> str:
    return duration(3600 * hours)
