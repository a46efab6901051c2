"""Keeps a user's edits in a card while its generated content is updated.

The YAML keys of `GENERATED` are generated, and so are sections: `<!-- fakeit:NAME -->` to `<!-- /fakeit:NAME -->`.
All else in an existing card is the user's: other YAML keys such as `license`, the title, and lines outside sections.
"""

import re
from dataclasses import dataclass
from typing import Any

import yaml

from builders.errors import UserError

GENERATED = ("configs", "dataset_info", "size_categories", "fakeit")
"""YAML keys that programs read, and that the manifest determines."""
SECTION = re.compile(r"<!-- fakeit:(\w+) -->\n(?:(?!<!-- /?fakeit:).)*<!-- /fakeit:\1 -->\n", re.DOTALL)
MARK = re.compile(r"<!-- /?fakeit:\w+ -->")


@dataclass(frozen=True, kw_only=True)
class CardText:
    """License and description that a user gives for real images when they become a clone."""

    license: str = ""
    """Name of the license on the Hub, such as cc-by-4.0; "" keeps the card's."""
    description: str = ""
    """Paragraph below the title; "" keeps the card's."""


def split_card(card: str, where: str) -> tuple[dict[str, Any], str]:
    """Returns the YAML block of a card ({} if it has none) and the text below it.

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
    except (yaml.YAMLError, ValueError) as error:  # PyYAML raises ValueError for an impossible date
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 2}" if mark else ""
        reason = str(getattr(error, "problem", None) or error).splitlines()[0]
        raise UserError(f"the YAML of '{where}'{line} cannot be read ({reason}); fix it") from None
    if not isinstance(found, dict):
        raise UserError(f"the YAML of '{where}' holds no keys; fix it, or remove the card")
    return found, _checked(pieces[2], where)


def read_card(content: bytes, where: str) -> str:
    """Decodes a card.

    Raises:
        UserError: the card is not UTF-8.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"'{where}', line {line}, is not UTF-8; save the card as UTF-8") from None


def _checked(body: str, where: str) -> str:
    """Returns the text unchanged.

    Raises:
        UserError: a mark has no counterpart, so that the user's lines cannot be distinguished from generated ones.
    """
    if odd := MARK.search(SECTION.sub("", body)):
        raise UserError(
            f"'{where}' has the mark '{odd[0]}' without the other mark of its section; restore that one, or remove both"
        )
    return body


def join_card(metadata: dict[str, Any], body: str) -> str:
    """Returns the card with this YAML block and this text below it."""
    header = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, width=1000).strip()
    return f"---\n{header}\n---\n{body}"


def with_text(card: str, text: CardText) -> str:
    """Returns the card with a license, and with a description below its title unless the card already contains it."""
    metadata, body = split_card(card, "README.md")
    if text.license:
        metadata["license"] = text.license
    if text.description and text.description not in body:
        title = re.search(r"^# .*\n", body, re.MULTILINE)
        end = title.end() if title else 0
        body = f"{body[:end]}\n{text.description}\n{body[end:]}"
    return join_card(metadata, body)


def merge_card(existing: str, fresh: str, where: str) -> str:
    """Returns `fresh` with everything that is the user's in `existing`.

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
    """Returns the generated YAML keys of a card that differ from a fresh one.

    Sections are not compared, because another version may word them differently.

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
