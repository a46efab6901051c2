"""Checks the values of a recipe's fields, whose types are right already."""

from typing import Any

from builders.classes.class_list import MAX_CLASS_ID, ClassEntry
from builders.errors import UserError
from builders.format.rounds import MAX_COUNT
from builders.images.encode import check_format
from builders.images.read import check_color
from builders.recipes.checks import least_scores
from builders.recipes.prompts import template_fields

SAFETY = ("off", "flag", "drop")
DTYPES = ("float32", "float16", "bfloat16")
FIRST_STEPS = ("", "base")
QUANTIZATIONS = ("", "int8")
LISTS = ("scenes", "adapters", "adapter_licenses", "checks")
"""Fields that are lists of texts."""


def check_recipe(recipe: Any) -> None:
    """Checks all fields of a `Recipe`, which imports this module.

    Raises:
        UserError: a value is out of range.
    """
    if recipe.shard_size < 1:
        raise UserError(f"shard_size is {recipe.shard_size}, but must be at least 1")
    if recipe.dtype not in DTYPES:
        raise UserError(f"unknown dtype '{recipe.dtype}'; choose from {', '.join(DTYPES)}")
    if recipe.safety not in SAFETY:
        raise UserError(f"unknown safety '{recipe.safety}'; choose from {', '.join(SAFETY)}")
    if recipe.split not in ("train", "validation", "test"):
        raise UserError(f"unknown split '{recipe.split}'; choose from train, validation, test")
    if not 1 <= recipe.image_quality <= 100:
        raise UserError(f"image_quality is {recipe.image_quality}, but must be 1 to 100")
    if not 0 <= recipe.seed < 2**53:
        raise UserError(f"seed is {recipe.seed}, but must be 0 to 2**53 - 1")
    if recipe.images_per_prompt < 1:
        raise UserError(f"images_per_prompt is {recipe.images_per_prompt}, but must be at least 1")
    if recipe.images_per_prompt > 1 and not recipe.prompts:
        raise UserError(f"--images-per-prompt {recipe.images_per_prompt} is for prompts of a file; give --prompts too")
    if recipe.first_step not in FIRST_STEPS:
        raise UserError(f"unknown first_step '{recipe.first_step}'; give base, or leave it out")
    if recipe.first_step and not recipe.adapters:
        raise UserError(f"first_step {recipe.first_step} changes nothing without an adapter; give --adapter too")
    if recipe.first_step and recipe.num_inference_steps < 2:
        raise UserError(f"first_step {recipe.first_step} leaves no step for the adapters; give 2 steps or more")
    if recipe.quantization not in QUANTIZATIONS:
        raise UserError(f"unknown quantization '{recipe.quantization}'; give int8, or leave it out")
    if recipe.first_block_cache < 0:
        raise UserError(f"first_block_cache is {recipe.first_block_cache:g}, but must be 0 or more")
    check_format(recipe.image_format)
    check_color(recipe.background_color)
    try:
        template_fields(recipe.prompt)
    except ValueError as error:
        raise UserError(str(error)) from None
    _check_classes(recipe.classes)
    for name in ("adapters", "checks"):
        texts = getattr(recipe, name)
        if twice := [text for number, text in enumerate(texts) if text in texts[:number]]:
            raise UserError(f"--{name.removesuffix('s')} {twice[0]} is given twice; leave one of them out")
    if len(least_scores(recipe.checks)) < len(recipe.checks):
        raise UserError(
            f"two checks of {', '.join(recipe.checks)} have one name; rename the file of one, or leave it out"
        )


def is_utf8(text: str) -> bool:
    """Whether a text has no lone surrogates; arguments in other encodings than UTF-8 have them."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _check_classes(classes: tuple[ClassEntry, ...]) -> None:
    wnids = [entry.wnid for entry in classes]
    if wnids != sorted(set(wnids)):
        raise UserError("the classes of a recipe must be sorted by id, each listed once")
    for wnid in wnids:
        if not 0 < len(wnid) <= MAX_CLASS_ID or set(wnid) & set("./\\ \t\n"):
            raise UserError(
                f"class id '{wnid}' has a dot, slash or space, or not 1 to {MAX_CLASS_ID} characters; use a wnid or a slug"
            )
    for entry in classes:
        texts = (entry.name, entry.hypernym, entry.definition)
        if not all(isinstance(text, str) and is_utf8(text) for text in texts) or type(entry.base_count) is not int:
            raise UserError(f"class '{entry.wnid}' has fields of a wrong type; give strings and a whole number")
        if entry.base_count > MAX_COUNT:
            raise UserError(f"class '{entry.wnid}' has {entry.base_count} images; keys have room for {MAX_COUNT}")
        if entry.base_count < 1:
            raise UserError(f"class '{entry.wnid}' has {entry.base_count} images; leave it out or give it at least 1")
