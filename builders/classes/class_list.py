"""The classes a clone is painted of: WordNet ids, names, hypernyms, definitions.

Invariant: a class list is in sorted-wnid order, and a class's position in it is its label.
"""

import csv
from dataclasses import dataclass
from importlib.resources import files

MAX_CLASS_ID = 64
"""Letters of a class id: names in a tar header have 100 bytes."""


@dataclass(frozen=True, kw_only=True)
class ClassEntry:
    wnid: str
    """WordNet id ("n13742358"), or a slug for a class that has none; no dots. Also the label's name."""
    name: str
    """c of the paper: all lemmas joined by ", "."""
    hypernym: str = ""
    """h_c of the paper: the parent's first lemma."""
    definition: str = ""
    """d_c of the paper: the gloss."""
    base_count: int = 1
    """The class's share of a round: equal for clones, the real set's counts for real images."""


def read_class_table(name: str) -> tuple[ClassEntry, ...]:
    """The shipped class table `<name>.tsv`, in sorted-wnid order."""
    with (files("builders.classes") / f"{name}.tsv").open(encoding="utf-8") as lines:
        rows = csv.DictReader(lines, delimiter="\t")
        entries = [
            ClassEntry(wnid=row["wnid"], name=row["lemmas"], hypernym=row["hypernym"], definition=row["definition"])
            for row in rows
        ]
    return tuple(sorted(entries, key=lambda entry: entry.wnid))
