"""ImageNet-Val, v2, Sketch, R and A as published: wnid folders, v2's numbered folders, archives, or clones of them.

Classes are identified by wnid. v2 numbers its folders in the order of sorted wnids; datasets of the Hub name classes
by lemmas."""

import re
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from builders.classes.imagenet import imagenet_names, read_parents
from builders.errors import UserError
from builders.image_sets.archives import is_archive
from builders.image_sets.base import ImageSet
from builders.image_sets.open_image_set import open_image_set
from fakeit_eval.test_sets.base import TestSet

WNID = re.compile(r"n\d{8}")
NUM_CLASSES = 1000


def open_set(row: TestSet, location: str) -> ImageSet:
    """Opens a test set.

    Args:
        row: The test set's row of the table.
        location: Its folder, archive or URL, or a directory of datasets that has it under a name with `row.prefix`.

    Raises:
        UserError: the test set is not there, or a class is not a class of ImageNet.
    """
    found = open_image_set(_below(row, location), row.name)
    return replace(found, name=row.name, class_names=as_wnids(found.class_names, found.location))


def as_wnids(names: tuple[str, ...], location: str) -> tuple[str, ...]:
    """Converts class names to wnids.

    Names may be wnids, numbers in the order of sorted wnids, or all lemmas of a class.

    Raises:
        UserError: a name is none of these, or fits two classes.
    """
    wnids = list(read_parents())
    if set(names) <= set(wnids):
        return names
    if all(name.isdecimal() and int(name) < len(wnids) for name in names):
        return tuple(wnids[int(name)] for name in names)
    by_lemmas = _by_lemmas(wnids)
    found: list[str] = []
    for name in names:
        choices = by_lemmas.get(name, [])
        if not choices or (len(choices) > 1 and names.count(name) != len(choices)):
            raise UserError(
                f"class '{name}' of '{location}' is no class of ImageNet-1K; its folders should have wnids as names "
                "(such as n01440764), or v2's numbers"
            )
        found.append(choices[len([1 for other in found if other in choices])])
    return tuple(found)


def _by_lemmas(wnids: list[str]) -> dict[str, list[str]]:
    """Wnids by lemmas, in sorted order; two pairs of classes have the same lemmas."""
    names, found = imagenet_names(), dict[str, list[str]]()
    for wnid in wnids:
        found.setdefault(names[wnid], []).append(wnid)
    return found


def _below(row: TestSet, location: str) -> str:
    """Finds a test set: its entry in a directory of datasets, or else `location` itself.

    Raises:
        UserError: the test set is not there.
    """
    root = Path(location)
    _refuse_flat(root)
    if not root.is_dir():
        return location
    entries = [entry for entry in sorted(root.iterdir()) if entry.name[0] != "."]
    found = [e for e in entries if e.name.startswith(row.prefix) and (e.is_dir() or is_archive(str(e)))]
    if found:
        _refuse_flat(found[0])
        return str(found[0])
    folders = [entry.name for entry in entries if entry.is_dir()]
    if all(name.isdecimal() and int(name) < NUM_CLASSES for name in folders) or any(WNID.fullmatch(n) for n in folders):
        return location if folders else _missing(row, location)
    return _missing(row, location)


def _missing(row: TestSet, location: str) -> NoReturn:
    raise UserError(
        f"'{row.name}' is not in '{location}' (nothing there begins with '{row.prefix}'); "
        f"download it there, or give its path: --data {row.name}=PATH"
    )


def _refuse_flat(root: Path) -> None:
    if root.is_dir() and (next(root.glob("ILSVRC2012_val_*"), None) or (root / "ILSVRC2012_img_val.tar").exists()):
        raise UserError(
            f"the images in '{root}' are not in class folders; sort them with "
            "torchvision.datasets.ImageNet(root, 'val'), which needs ILSVRC2012_devkit_t12.tar.gz beside them"
        )
