"""The classes of ImageNet-1K and ImageNet-100.

Lemmas and definitions come from timm's class information, hypernyms from WordNet. timm's files are read as package
data; timm itself is not imported.
"""

import csv
import importlib.util
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from builders.classes.class_list import ClassEntry
from builders.classes.class_options import ClassOptions
from builders.errors import missing_extra

IMAGES_PER_CLASS = 1300
PARENTS = "imagenet_parents.tsv"
"""Table of wnid, wnids of its parents joined by "|", and lemmas of each joined by "|".

write_imagenet_parents.py writes it.
"""


@dataclass(frozen=True, kw_only=True)
class Parents:
    wnids: list[str]
    lemmas: list[list[str]]
    """Lemmas of each parent."""


@cache
def read_parents() -> dict[str, Parents]:
    """Reads the hypernyms of the 1,000 classes of ImageNet-1K, by wnid in sorted order."""
    with (files("builders.classes") / PARENTS).open(encoding="utf-8") as lines:
        return {
            row["wnid"]: Parents(
                wnids=row["parents"].split("|"), lemmas=[lemmas.split(", ") for lemmas in row["lemmas"].split("|")]
            )
            for row in csv.DictReader(lines, delimiter="\t")
        }


def read_imagenet100_wnids() -> list[str]:
    """Reads the wnids of ImageNet-100 (Tian et al., Contrastive Multiview Coding, 2020), in the order of their file."""
    return (files("builders.classes") / "imagenet100_wnids.txt").read_text(encoding="utf-8").split()


def imagenet_classes(wnids: list[str], options: ClassOptions) -> tuple[ClassEntry, ...]:
    """Returns classes of ImageNet-1K in sorted-wnid order, each with the same number of images.

    Raises:
        UserError: timm is not installed.
    """
    names, definitions, parents = _timm_table("lemma"), _timm_table("definition"), read_parents()
    return tuple(
        ClassEntry(
            wnid=wnid,
            name=names[wnid],
            hypernym=options.hypernym(parents[wnid].lemmas),
            definition=definitions[wnid],
            base_count=IMAGES_PER_CLASS,
        )
        for wnid in sorted(wnids)
    )


def imagenet_names() -> dict[str, str]:
    """Returns all lemmas, joined by ", ", of each synset of ImageNet-22K, by wnid.

    Raises:
        UserError: timm is not installed.
    """
    return _timm_table("lemma")


def timm_info(name: str) -> Path:
    """Returns the path of a file of timm's dataset information, which is found without importing timm.

    Raises:
        UserError: timm is not installed.
    """
    package = importlib.util.find_spec("timm")
    if package is None or not package.submodule_search_locations:
        raise missing_extra("timm", "build")
    return Path(package.submodule_search_locations[0]) / "data" / "_info" / name


@cache
def _timm_table(what: str) -> dict[str, str]:
    text = timm_info(f"imagenet_synset_to_{what}.txt").read_text(encoding="utf-8")
    return dict(line.split("\t", 1) for line in text.splitlines())
