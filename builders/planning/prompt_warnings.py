"""Warns of odd prompts in a plan before any image is generated.

It finds classes with the same prompt, prompts that a text encoder cuts off, and settings that the model ignores.
"""

import contextlib
from collections import defaultdict
from collections.abc import Sequence

import pyarrow.compute as pc

from builders.classes.class_list import ClassEntry
from builders.classes.scenes import scene_phrase
from builders.diffusion.family_defaults import family_of
from builders.diffusion.token_counts import TextEncoder, text_encoders
from builders.engines.base import engine
from builders.errors import ReadableError
from builders.planning.plan import Plan
from builders.prompts.canonical_rows import shown
from builders.prompts.prompt_table import prompt_table
from builders.recipes.prompts import render_prompt, template_fields
from builders.recipes.recipe import Recipe

MAX_COUNTED = 5_000
"""Number of captions whose tokens a plan counts; `prompts lint` counts them all."""


def prompt_warnings(plan: Plan) -> list[str]:
    """Returns one sentence per problem. Tokens are counted only if the model's tokenizer is on this machine."""
    recipe = plan.recipe
    if not engine(recipe.engine).IS_SYNTHETIC:
        return []
    same = same_prompts(recipe)
    if not engine(recipe.engine).HAS_TOKENIZERS:
        return same
    found = None
    with contextlib.suppress(ReadableError):  # loading the model reports it
        found = family_of(recipe)
    unused = (
        [
            f"{name} {getattr(recipe, name)!r} changes nothing in images of {found.family.name} with these settings"
            for name in found.family.ignored(recipe)
        ]
        if found
        else []
    )
    encoders, uncounted = text_encoders(recipe, found.family if found else None)
    count = _cut_captions if recipe.prompts and not prompt_table(recipe.prompts).has_templates else _cut_prompts
    cut = [warning for encoder in encoders for warning in count(recipe, encoder)]
    return [*same, *unused, *cut, *uncounted]


def same_prompts(recipe: Recipe) -> list[str]:
    """Returns one sentence for each set of classes whose prompts are the same by every template."""
    templates = _templates(recipe)
    classes: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for entry in recipe.classes if templates else ():
        classes[tuple(render_prompt(template, entry, "") for template in templates)].append(entry.wnid)
    return [
        f"classes {', '.join(wnids)} have the same prompt '{prompts[0]}', so their images show the same things"
        for prompts, wnids in classes.items()
        if len(wnids) > 1
    ]


def _templates(recipe: Recipe) -> list[str]:
    """Returns the recipe's templates; none if its prompts are captions."""
    if not recipe.prompts:
        return [recipe.prompt]
    table = prompt_table(recipe.prompts)
    rows = table.read() if table.has_templates else None
    return [] if rows is None else [str(text) for text in rows.filter(pc.invert(rows["skip"]))["text"].to_pylist()]


def _cut_prompts(recipe: Recipe, encoder: TextEncoder) -> list[str]:
    """Warns of the prompts of templates."""
    num_cut, num_prompts = 0, 0
    wnids: dict[str, None] = {}
    for template in _templates(recipe):
        cut, prompts, classes = _count_cut(recipe, template, encoder)
        num_cut, num_prompts = num_cut + cut, num_prompts + prompts
        wnids |= dict.fromkeys(classes)
    if not num_cut:
        return []
    return [
        f"{num_cut:,} of {num_prompts:,} different prompts ({len(wnids)} classes: {shown(list(wnids))}) are longer than the "
        f"{encoder.limit} tokens that its {encoder.name} reads; their ends are cut off"
    ]


def _cut_captions(recipe: Recipe, encoder: TextEncoder) -> list[str]:
    """Warns of captions: counts the longest ones, for all would take minutes."""
    table = prompt_table(recipe.prompts)
    longest = table.longest(MAX_COUNTED)
    num_cut = int(encoder.is_cut(longest).sum())
    if not num_cut:
        return []
    of_all = "prompts" if table.num_rows == len(longest) else f"longest of {table.num_rows:,} prompts"
    return [
        f"{num_cut:,} of the {len(longest):,} {of_all} are longer than the {encoder.limit} tokens that its {encoder.name} "
        "reads; their ends are cut off (fakeit-build prompts lint names them)"
    ]


def _count_cut(recipe: Recipe, template: str, encoder: TextEncoder) -> tuple[int, int, list[str]]:
    """Returns the numbers of different prompts that are cut and of all, and the classes of the former."""
    phrases = [scene_phrase(scene) for scene in recipe.scenes] if "b" in template_fields(template) else [""]
    longest = phrases[int(encoder.num_tokens(phrases).argmax())]
    num_cut, wnids, seen = 0, [], set()
    prompts = [render_prompt(template, entry, longest) for entry in recipe.classes]
    for entry, prompt, is_cut in zip(recipe.classes, prompts, encoder.is_cut(prompts), strict=True):
        # If the prompt with the longest background fits, those with other backgrounds fit as well.
        if is_cut and prompt not in seen:
            num_cut += int(encoder.is_cut(_prompts(template, entry, phrases)).sum())
            wnids.append(entry.wnid)
        seen.add(prompt)
    return num_cut, len(seen) * len(phrases), wnids


def _prompts(template: str, entry: ClassEntry, phrases: Sequence[str]) -> list[str]:
    return [render_prompt(template, entry, phrase) for phrase in phrases]
