"""Composes captions of a class from short lists of media, settings, views and lights (compositions.tsv), without a model.

For the embedded model of the digits, captions are what it was fitted on: the paper's templates and its own backdrops.
"""

import csv
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

import numpy as np

from builders.classes.class_list import ClassEntry
from builders.classes.scenes import scene_phrase
from builders.diffusion.pin import is_embedded
from builders.recipes.prompts import TEMPLATES, render_prompt, template_fields
from builders.recipes.recipe import Recipe

SOURCE = "composed"
"""What the column `source` says of these captions."""
SLOTS = ("medium", "setting", "view", "light")


def compositions(recipe: Recipe, entry: ClassEntry) -> Iterator[str]:
    """Yields all captions of a class, in an order shuffled by the recipe's seed and the class."""
    if is_embedded(recipe):
        texts = list(dict.fromkeys(_learned(recipe, entry)))
        yield from (texts[number] for number in _order(recipe.seed, entry.wnid, len(texts)))
        return
    lists = [_phrases()[slot] for slot in SLOTS]
    kind = f", {entry.hypernym}" if entry.hypernym else ""
    for number in _order(recipe.seed, entry.wnid, int(np.prod([len(phrases) for phrases in lists]))):
        chosen = np.unravel_index(number, [len(phrases) for phrases in lists])
        medium, *rest = (phrases[index] for phrases, index in zip(lists, chosen, strict=True))
        yield f"{medium} {entry.name.split(', ')[0]}{kind}, {', '.join(rest)}"


def num_compositions(recipe: Recipe) -> int:
    """Returns the number of different captions of a class."""
    return len(list(compositions(recipe, recipe.classes[0])))


def _learned(recipe: Recipe, entry: ClassEntry) -> Iterator[str]:
    for template in TEMPLATES.values():
        scenes = recipe.scenes if "b" in template_fields(template) else ("",)
        yield from (render_prompt(template, entry, scene_phrase(scene)) for scene in scenes)


def _order(seed: int, class_id: str, length: int) -> list[int]:
    stream = hashlib.shake_128(f"{seed}/compositions/{class_id}".encode()).digest(8 * length)
    return np.argsort(np.frombuffer(stream, dtype=">u8"), kind="stable").tolist()


@cache
def _phrases() -> dict[str, list[str]]:
    with (files("builders.prompt_writing") / "compositions.tsv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    return {slot: [row["phrase"] for row in rows if row["slot"] == slot] for slot in SLOTS}
