"""What people change in a card, and what is written anew: so that a card is a file that can be edited.

Written anew are the YAML keys of `GENERATED` and the sections between marks: `<!-- fakeit:NAME -->` to `<!-- /fakeit:NAME -->`.
All else, once it is there, is the user's: other YAML keys such as `license`, the title, and every line outside of the marks.
"""

import re
from dataclasses import dataclass
from typing import Any

import yaml

from builders.errors import UserError

GENERATED = ("configs", "dataset_info", "size_categories", "fakeit")
"""YAML keys that machines read, and that the manifest determines."""
SECTION = re.compile(r"<!-- fakeit:(\w+) -->\n(?:(?!<!-- /?fakeit:).)*<!-- /fakeit:\1 -->\n", re.DOTALL)
MARK = re.compile(r"<!-- /?fakeit:\w+ -->")


@dataclass(frozen=True, kw_only=True)
class CardText:
    """What a user says about real images when they become a clone."""

    license: str = ""
    """As the Hub calls it, such as cc-by-4.0; "" leaves what the card says."""
    description: str = ""
    """A paragraph below the title; "" leaves what the card says."""


def split_card(card: str, where: str) -> tuple[dict[str, Any], str]:
    """The YAML block of a card, {} where it has none, and the text below it.

    Raises:
        UserError: the YAML block cannot be read.
    """
    card = card.replace("\r\n", "\n").lstrip("\ufeff \n").rstrip() + "\n"
    card = re.sub(r"(<!-- /?fakeit:\w+ -->)[ \t]+$", r"\1", card, flags=re.MULTILINE)
    pieces = re.split(r"^---[ \t]*\n", card, maxsplit=2, flags=re.MULTILINE)
    if len(pieces) < 3 or pieces[0]:
        return {}, _checked(card, where)
    try:
        found = yaml.safe_load(pieces[1])
    except (yaml.YAMLError, ValueError) as error:  # ValueError: of a date that is none
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 2}" if mark else ""
        reason = str(getattr(error, "problem", None) or error).splitlines()[0]
        raise UserError(f"the YAML of '{where}'{line} cannot be read ({reason}); mend it") from None
    if not isinstance(found, dict):
        raise UserError(f"the YAML of '{where}' holds no keys; mend it, or remove the card")
    return found, _checked(pieces[2], where)


def read_card(content: bytes, where: str) -> str:
    """A card's text.

    Raises:
        UserError: it is not UTF-8.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"'{where}', line {line}, is not UTF-8; save the card as UTF-8") from None


def _checked(body: str, where: str) -> str:
    """The text itself.

    Raises:
        UserError: a mark lacks its other one, so that nobody can tell what is the user's.
    """
    if odd := MARK.search(SECTION.sub("", body)):
        raise UserError(
            f"'{where}' has the mark '{odd[0]}' without the other one of its section; put it back, or remove both"
        )
    return body


def join_card(metadata: dict[str, Any], body: str) -> str:
    """A card of its YAML block and the text below it."""
    header = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, width=1000).strip()
    return f"---\n{header}\n---\n{body}"


def with_text(card: str, text: CardText) -> str:
    """A card with a license, and with a description below its title where it does not say that already."""
    metadata, body = split_card(card, "README.md")
    if text.license:
        metadata["license"] = text.license
    if text.description and text.description not in body:
        title = re.search(r"^# .*\n", body, re.MULTILINE)
        end = title.end() if title else 0
        body = f"{body[:end]}\n{text.description}\n{body[end:]}"
    return join_card(metadata, body)


def merge_card(existing: str, fresh: str, where: str) -> str:
    """`fresh` with all that is the user's in `existing`.

    Raises:
        UserError: the YAML of the existing card cannot be read.
    """
    old, body = split_card(existing, where)
    new, _ = split_card(fresh, where)
    metadata = {name: value for name, value in old.items() if name not in GENERATED or name in new}
    metadata |= {name: value for name, value in new.items() if name in GENERATED or name not in old}
    sections = _sections(fresh)
    body = SECTION.sub(lambda match: sections.get(match[1], ""), body)
    end = 0
    for name, section in sections.items():
        there = _find(body, name)
        if there is None:
            body = f"{body[:end]}\n{section}{body[end:]}" if end else f"{body.rstrip()}\n\n{section}"
            there = _find(body, name)
        assert there is not None
        end = there.end()
    return join_card(metadata, body)


def stale_keys(existing: str, fresh: str, where: str) -> list[str]:
    """The generated YAML keys of a card that differ from a fresh one; the sections' words may be those of another version.

    Raises:
        UserError: the YAML of the existing card cannot be read.
    """
    old, _ = split_card(existing, where)
    new, _ = split_card(fresh, where)
    return [name for name in GENERATED if old.get(name) != new.get(name)]


def _sections(text: str) -> dict[str, str]:
    return {match[1]: match[0] for match in SECTION.finditer(text.replace("\r\n", "\n"))}


def _find(body: str, name: str) -> "re.Match[str] | None":
    return next((match for match in SECTION.finditer(body) if match[1] == name), None)
