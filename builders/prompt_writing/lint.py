"""Finds what is wrong or odd in a prompt file, row by row, before a clone is made with it."""

import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from builders.classes.scenes import scene_phrase
from builders.diffusion.family_defaults import family_of
from builders.diffusion.token_counts import TextEncoder, text_encoders
from builders.prompts.canonical_rows import CanonicalRows, Fault, canonical_rows
from builders.recipes.prompts import FIELDS, render_prompt, template_fields
from builders.recipes.recipe import Recipe

FIELD = re.compile(rf"\{{({'|'.join(FIELDS)})\}}")


def lint(recipe: Recipe, where: str) -> list[Fault]:
    """Returns all faults of a prompt file for a recipe's classes: those of the whole file first, then by row.

    Raises:
        UserError: the file cannot be read at all.
    """
    recipe = replace(recipe, prompts="", prompts_source="", images_per_prompt=1)
    found = canonical_rows(recipe, where)
    faults = [*found.faults, *_duplicates(found)]
    family = family_of(recipe)
    encoders, problems = text_encoders(recipe, family.family if family else None)
    for encoder in encoders:
        faults += _cut_templates(recipe, found, encoder) if not found.has_classes else _cut_captions(found, encoder)
    if found.has_classes:
        faults += _fields_in_captions(found)
    faults += [Fault(problem, is_fatal=False) for problem in problems]
    return sorted(faults, key=lambda fault: fault.row)


def _duplicates(found: CanonicalRows) -> Iterator[Fault]:
    rows = found.rows
    both = pc.binary_join_element_wise(rows["class"], rows["text"], "\n").combine_chunks()
    indices = pc.dictionary_encode(both).indices.to_numpy()
    _, firsts = np.unique(indices, return_index=True)
    for row in np.setdiff1d(np.arange(len(indices)), firsts):
        first = int(found.numbers[firsts[indices[row]]])
        yield Fault(f"its text is that of row {first:,}; remove one of them", int(found.numbers[row]), is_fatal=False)


def _cut_captions(found: CanonicalRows, encoder: TextEncoder) -> Iterator[Fault]:
    num_tokens = encoder.num_tokens(found.rows["text"].to_pylist())
    yield from _cut(found, num_tokens, encoder)


def _cut_templates(recipe: Recipe, found: CanonicalRows, encoder: TextEncoder) -> Iterator[Fault]:
    """Counts the tokens of each template with the class and the scene that make it longest."""
    phrases = [scene_phrase(scene) for scene in recipe.scenes] or [""]
    longest = phrases[int(encoder.num_tokens(phrases).argmax())]
    most = []
    for text in found.rows["text"].to_pylist():
        is_template = not _is_bad(text)
        prompts = [render_prompt(text, entry, longest) for entry in recipe.classes] if is_template else [""]
        most.append(int(encoder.num_tokens(prompts).max()))
    yield from _cut(found, np.array(most), encoder)


def _cut(found: CanonicalRows, num_tokens: NDArray[np.int64], encoder: TextEncoder) -> Iterator[Fault]:
    for row in np.flatnonzero(num_tokens > encoder.limit - encoder.num_own):
        text = (
            f"it has up to {num_tokens[row] + encoder.num_own:,} tokens, and the {encoder.name} of the model reads "
            f"{encoder.limit}; its end is cut off"
        )
        yield Fault(text, int(found.numbers[row]), is_fatal=False)


def _is_bad(template: str) -> bool:
    try:
        template_fields(template)
    except ValueError:
        return True
    return False


def _fields_in_captions(found: CanonicalRows) -> Iterator[Fault]:
    """Finds fields of templates in captions, where they are not filled in."""
    suspects = pc.match_substring_regex(found.rows["text"], FIELD.pattern).to_numpy(zero_copy_only=False)
    for row in np.flatnonzero(suspects):
        field = FIELD.search(found.rows["text"][row].as_py())
        text = f"{field[0] if field else ''} stays as it is, because the file has a column of classes"
        yield Fault(text, int(found.numbers[row]), is_fatal=False)
