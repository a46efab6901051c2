"""The user's own class lists: a text file of names, WordNet synsets and wnids, or class folders of images.

A line of the file is "dog.n.01", "n02084071", or a name. A name's hypernym and definition may follow it, after tabs.
"""

import os
from dataclasses import replace
from pathlib import Path

from builders.classes.class_ids import class_ids
from builders.classes.class_list import ClassEntry
from builders.classes.class_options import ClassOptions
from builders.classes.imagenet import IMAGES_PER_CLASS
from builders.classes.wordnet import is_synset, parent_lemmas, read_synset
from builders.command_line.text_list import Line, read_list
from builders.errors import UserError
from builders.images.folders import is_visible, readable


def custom_classes(options: ClassOptions) -> tuple[ClassEntry, ...]:
    """Returns the classes of `options.source`, sorted by their ids.

    Raises:
        UserError: the source cannot be read, a synset is unknown, or two classes get the same id.
    """
    if not options.source:
        raise UserError(
            "custom_sd needs its classes; give --source a text file with one class per line, or class folders"
        )
    is_folders = os.path.isdir(options.source)
    described = _folders(options.source) if is_folders else _lines(options.source)
    ids = class_ids(name for name, _, _ in described)
    entries = [_entry(ids[name], name, hypernym, definition, options) for name, hypernym, definition in described]
    if is_folders:
        entries = [replace(entry, name=_in_prompt(entry.name)) for entry in entries]
    return tuple(sorted(entries, key=lambda entry: entry.wnid))


def _folders(root: str) -> list[tuple[str, str, str]]:
    names = sorted(readable(entry.name) for entry in os.scandir(root) if entry.is_dir() and is_visible(entry.name))
    if not names:
        raise UserError(f"'{Path(root)}' has no class folders; give --source a folder for each class, or a text file")
    return [(name, "", "") for name in names]


def _in_prompt(name: str) -> str:
    """Returns a folder's name as it is written in a prompt."""
    return name.replace("_", " ")


def _lines(path: str) -> list[tuple[str, str, str]]:
    return [_described(path, line) for line in read_list(path, "a line for each class")]


def _described(path: str, line: Line) -> tuple[str, str, str]:
    """Returns the name, the hypernym and the definition of a class."""
    name, hypernym, definition, *more = *[field.strip() for field in line.text.split("\t")], "", ""
    if len(more) > 2 or not name:
        raise UserError(
            f"'{path}', line {line.number}: '{line.text}' has more than a name, a hypernym and a definition"
        )
    return name, hypernym, definition


def _entry(identity: str, name: str, hypernym: str, definition: str, options: ClassOptions) -> ClassEntry:
    if is_synset(name):
        synset = read_synset(name)
        return ClassEntry(
            wnid=synset.wnid,
            name=", ".join(synset.lemmas),
            hypernym=options.hypernym(parent_lemmas(synset)),
            definition=synset.definition,
            base_count=IMAGES_PER_CLASS,
        )
    return ClassEntry(wnid=identity, name=name, hypernym=hypernym, definition=definition, base_count=IMAGES_PER_CLASS)
