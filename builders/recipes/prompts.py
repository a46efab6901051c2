"""Prompt templates, filled in with the facts about a class. The six templates are the paper's (section 3, Tab. 4)."""

import string

from builders.classes.class_list import ClassEntry

TEMPLATES = {
    "c": "{c}",
    "c_h": "{c}, {h_c}",
    "c_d": "{c}, {d_c}",
    "c_h_inside_b": "{c}, {h_c} inside {b}",
    "photo_of_c": "a photo of {c}",
    "image_of_c": "an image of {c}",
}
"""Templates by config name. Fields: c all lemmas, lemma the first one, h_c hypernym, d_c definition, b background."""

FIELDS = ("c", "lemma", "h_c", "d_c", "b")


def template_fields(template: str) -> list[str]:
    """Returns the fields that a prompt template names, in order.

    Raises:
        ValueError: a field is unknown, or the braces do not match.
    """
    try:
        pieces = [piece for piece in string.Formatter().parse(template) if piece[1] is not None]
    except ValueError as error:
        raise ValueError(f"prompt template {template!r} cannot be read ({error}); write fields as {{c}}") from None
    for _, name, specification, conversion in pieces:
        if name not in FIELDS or specification or conversion:
            raise ValueError(f"unknown prompt field {{{name}}} in {template!r}; choose from {', '.join(FIELDS)}")
    return [str(name) for _, name, _, _ in pieces]


def render_prompt(template: str, entry: ClassEntry, background: str = "") -> str:
    """Returns the prompt of one image: the template filled in for a class and a background phrase ("" without {b})."""
    return template.format(
        c=entry.name, lemma=entry.name.split(", ")[0], h_c=entry.hypernym, d_c=entry.definition, b=background
    )
