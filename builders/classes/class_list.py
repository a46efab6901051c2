"""The list of a clone's classes: WordNet ids, names, hypernyms, definitions.

Invariant: a class list is in sorted-wnid order, and a class's position in it is its label.
"""

import csv
from dataclasses import dataclass
from importlib.resources import files

MAX_CLASS_ID = 64
"""Upper limit for the letters of a class id: a name in a tar header has at most 100 bytes."""


@dataclass(frozen=True, kw_only=True)
class ClassEntry:
    wnid: str
    """WordNet id ("n13742358"), or a slug for a class that has none. It has no dots, and is also the label's name."""
    name: str
    """c in the paper: all lemmas, joined by ", "."""
    hypernym: str = ""
    """h_c in the paper: the first lemma of the parent."""
    definition: str = ""
    """d_c in the paper: the gloss."""
    base_count: int = 1
    """Number of images in the 1x clone: equal for all classes of a synthetic clone, the real counts for real images."""


def read_class_table(name: str) -> tuple[ClassEntry, ...]:
    """Reads the shipped class table `<name>.tsv`, in sorted-wnid order."""
    with (files("builders.classes") / f"{name}.tsv").open(encoding="utf-8") as lines:
        rows = csv.DictReader(lines, delimiter="\t")
        entries = [
            ClassEntry(wnid=row["wnid"], name=row["lemmas"], hypernym=row["hypernym"], definition=row["definition"])
            for row in rows
        ]
    return tuple(sorted(entries, key=lambda entry: entry.wnid))
