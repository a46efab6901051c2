"""Class lists of a user's own: a text file of names, WordNet synsets and wnids, or the class folders of an image dataset.

A line of the file is "dog.n.01", "n02084071", or a name with, after tabs, its hypernym and its definition if it has them.
"""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from builders.classes.class_list import MAX_CLASS_ID, ClassEntry
from builders.classes.class_options import ClassOptions, read_lines
from builders.classes.imagenet import IMAGES_PER_CLASS
from builders.classes.wordnet import WNID, is_synset, parent_lemmas, read_synset
from builders.format.errors import UserError

Value = TypeVar("Value")


def custom_classes(options: ClassOptions) -> tuple[ClassEntry, ...]:
    """The classes of `options.source` in sorted order of their ids.

    Raises:
        UserError: it cannot be read, a synset is unknown, or two classes get the same id.
    """
    if not options.source:
        raise UserError("custom_sd needs its classes; give --source a text file with a class a line, or class folders")
    path = Path(options.source)
    if path.is_dir():
        names = [_said(folder.name) for folder in sorted(path.iterdir()) if folder.is_dir() and folder.name[0] != "."]
        if not names:
            raise UserError(f"'{path}' has no class folders; give --source a folder for each class, or a text file")
    else:
        names = read_lines(options.source)
    entries = [(name, _entry(name, options)) for name in names]
    return tuple(in_order_of_ids((name, entry.wnid, entry) for name, entry in entries).values())


def in_order_of_ids(named: Iterable[tuple[str, str, Value]]) -> dict[str, Value]:
    """What belongs to each class id, ids sorted; each triple begins with what the user called the class.

    Raises:
        UserError: two of them have the same id.
    """
    found: dict[str, tuple[str, Value]] = {}
    for name, identity, value in named:
        if identity in found:
            raise UserError(f"'{found[identity][0]}' and '{name}' are both class '{identity}'; rename or remove one")
        found[identity] = (name, value)
    return {identity: found[identity][1] for identity in sorted(found)}


def class_id(name: str) -> str:
    """A wnid as it is, a synset's own wnid, any other name as a slug.

    Raises:
        UserError: WordNet has no such synset or is not installed, or nothing is left of the name.
    """
    if WNID.fullmatch(name):
        return name
    return read_synset(name).wnid if is_synset(name) else slug(name)


def slug(name: str) -> str:
    """A class id for a name without a wnid: lower-case ASCII letters and digits, "_" between: "R.V." is "r_v".

    Raises:
        UserError: nothing of the name is left.
    """
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    words = re.findall("[a-z0-9]+", ascii_name)
    if not words:
        raise UserError(f"class '{name}' has no letter or digit to make its id of; give it a name in Latin letters")
    return "_".join(words)[:MAX_CLASS_ID].rstrip("_")


def _said(folder: str) -> str:
    """A class folder's name as it is said; wnids and synsets as they are."""
    return folder if is_synset(folder) else folder.replace("_", " ")


def _entry(line: str, options: ClassOptions) -> ClassEntry:
    if is_synset(line):
        synset = read_synset(line)
        return ClassEntry(
            wnid=synset.wnid,
            name=", ".join(synset.lemmas),
            hypernym=options.hypernym(parent_lemmas(synset)),
            definition=synset.definition,
            base_count=IMAGES_PER_CLASS,
        )
    name, hypernym, definition, *more = *[part.strip() for part in line.split("\t")], "", ""
    if len(more) > 2 or not name:
        raise UserError(f"class line '{line}' has more than a name, a hypernym and a definition")
    return ClassEntry(wnid=slug(name), name=name, hypernym=hypernym, definition=definition, base_count=IMAGES_PER_CLASS)
