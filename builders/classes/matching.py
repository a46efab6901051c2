"""Matches the classes of a dataset with those of a model: by id, else by name, else by the name's own id."""

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
    """Returns the index of each class of a dataset among the known classes; None for a class that is unknown.

    Args:
        ids: Class ids of the dataset: wnids, slugs, or any other names of its classes.
        names: Display names of the dataset's classes, such as folder names; "" if unknown.
        known_ids: Class ids of the model.
        known_names: Display names of the model's classes; () if unknown.
        where: The dataset, for error messages.

    Raises:
        UserError: two classes match the same known class, or one class matches two.
    """
    names = names or [""] * len(ids)
    by_id, by_name = _positions(known_ids), _positions([_folded(name) for name in known_names])
    # Each lemma of "tench, Tinca tinca" matches, since folders may be named by one of them.
    by_lemma = _positions([_folded(name) for name in known_names], lambda name: name.split(", "))
    by_slug = _positions(known_names, lambda name: map(slug, name.split(", ")))
    found: list[int | None] = []
    for identity, name in zip(ids, names, strict=True):
        display_name = name or identity
        choices = (
            by_id.get(identity)
            or by_name.get(_folded(display_name))
            or by_lemma.get(_folded(display_name))
            or by_id.get(slug(display_name))
            or by_slug.get(slug(display_name))
            or []
        )
        if len(choices) > 1:
            raise UserError(
                f"class '{display_name}' of '{where}' may be {' or '.join(known_ids[number] for number in choices)}; "
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
    """Returns the indexes of the texts that have each piece; by default a text is its only piece."""
    found: dict[str, list[int]] = {}
    for number, text in enumerate(texts):
        for piece in dict.fromkeys(pieces_of(text) if text else []):
            found.setdefault(piece, []).append(number)
    return found


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
