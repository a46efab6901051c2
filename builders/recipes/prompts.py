"""Prompt templates, filled in with the facts about a class. The six templates are the paper's (section 3, Tab. 4).

A new template is an entry of `TEMPLATES`, a new field an entry of `FIELDS`.
"""

import string
from collections.abc import Callable, Sequence

from builders.classes.class_list import ClassEntry

TEMPLATES = {
    "c": "{c}",
    "c_h": "{c}, {h_c}",
    "c_d": "{c}, {d_c}",
    "c_h_inside_b": "{c}, {h_c} inside {b}",
    "photo_of_c": "a photo of {c}",
    "image_of_c": "an image of {c}",
}
"""Templates by the prompt's part of a config name."""

FIELDS: dict[str, Callable[[ClassEntry, str], str]] = {
    "c": lambda entry, background: entry.name,
    "lemma": lambda entry, background: entry.name.split(", ")[0],
    "h_c": lambda entry, background: entry.hypernym,
    "d_c": lambda entry, background: entry.definition,
    "b": lambda entry, background: background,
}
"""Fields of templates: all lemmas, the first one, hypernym, definition, background; each a function of the class and the
background phrase of one image."""


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
    return template.format(**{name: field(entry, background) for name, field in FIELDS.items()})


def template_problem(template: str, name: str, classes: Sequence[ClassEntry], has_scenes: bool) -> str:
    """Returns why the classes of the recipe `name` cannot fill a template; "" if they can."""
    try:
        fields = template_fields(template)
    except ValueError as error:
        return str(error)
    if "b" in fields and not has_scenes:
        return f"prompt '{template}' needs backgrounds, but '{name}' has no scenes"
    for field, attribute in (("h_c", "hypernym"), ("d_c", "definition")):
        missing = [entry.wnid for entry in classes if field in fields and not getattr(entry, attribute)]
        if missing:
            return (
                f"prompt '{template}' needs each class's {attribute}, and '{missing[0]}' has none; give it one in the class "
                "list, or choose another prompt"
            )
    return ""
