"""Which class of a model a class of a data set is: told by id, else by name, else by what the name's id would be."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from builders.classes.class_ids import slug
from builders.errors import UserError


def match_classes(
    ids: Sequence[str],
    names: Sequence[str],
    known_ids: Sequence[str],
    known_names: Sequence[str] = (),
    *,
    where: str = "the data",
) -> list[int | None]:
    """For each class of a data set its number among the known ones; None for one that is unknown.

    Args:
        ids: Wnids or slugs, or whatever the classes are called.
        names: What people call them, such as a folder's name; "" where nothing is known.
        known_ids: The model's classes.
        known_names: What people call those; () where nothing is known.
        where: The data set, for the error.

    Raises:
        UserError: two classes are the same known one, or one is two of them.
    """
    names = names or [""] * len(ids)
    by_id, by_name = _positions(known_ids), _positions([_folded(name) for name in known_names])
    # Of "tench, Tinca tinca" each lemma by itself, as folders are named.
    by_lemma = _positions([_folded(name) for name in known_names], lambda name: name.split(", "))
    by_slug = _positions(known_names, lambda name: map(slug, name.split(", ")))
    found: list[int | None] = []
    for identity, name in zip(ids, names, strict=True):
        display_names = name or identity
        choices = (
            by_id.get(identity)
            or by_name.get(_folded(display_names))
            or by_lemma.get(_folded(display_names))
            or by_id.get(slug(display_names))
            or by_slug.get(slug(display_names))
            or []
        )
        if len(choices) > 1:
            raise UserError(
                f"class '{display_names}' of '{where}' may be {' or '.join(known_ids[number] for number in choices)}; "
                "name it by its class id"
            )
        found.append(choices[0] if choices else None)
    twice = [number for number, count in Counter(number for number in found if number is not None).items() if count > 1]
    if twice:
        same = [
            name or identity for identity, name, number in zip(ids, names, found, strict=True) if number == twice[0]
        ]
        raise UserError(
            f"classes {' and '.join(repr(name) for name in same)} of '{where}' are both class '{known_ids[twice[0]]}'; "
            "rename one, or name it by its class id"
        )
    return found


def _positions(
    texts: Sequence[str], pieces_of: Callable[[str], Iterable[str]] = lambda text: [text]
) -> dict[str, list[int]]:
    """The numbers of the texts that have each part, by default the text itself."""
    found: dict[str, list[int]] = {}
    for number, text in enumerate(texts):
        for piece in dict.fromkeys(pieces_of(text) if text else []):
            found.setdefault(piece, []).append(number)
    return found


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
