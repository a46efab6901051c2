"""The table of test sets for a model's own classifier (`test_sets.tsv`), with their published sizes.

A test set is a row of the table and a module of this folder with `open_set(row, location)`.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

DOMAINS = {
    "near": "Val, v2",
    "far": "Sketch, R, A",
}
"""The first two domains of the paper's feature analysis (supplementary, section 3.3), and their names in tables.

The third one, "transfer", consists of the transfer tasks."""


@dataclass(frozen=True, kw_only=True)
class TestSet:
    __test__ = False  # pytest takes it for a test

    name: str
    domain: str
    """One of `DOMAINS`."""
    module: str
    """Module of fakeit_eval/test_sets that opens it."""
    prefix: str
    """Prefix of the name of its folder or archive below --root; "" if it needs no files."""
    images: int
    classes: int
    """Published numbers of images and of classes."""
    images_per_class: int
    """Images of each class; 0 if the number differs between classes."""
    stands_for: str
    """The test set of ImageNet that it replaces; "" if none."""

    @property
    def family(self) -> str:
        """The dataset that it is a variant of; variants are averaged before datasets are."""
        return "imagenet_v2" if self.name.startswith("imagenet_v2") else self.name

    def difference(self, num_images: int, num_classes: int) -> str:
        """How a user's copy differs from the published test set, in words; "" if it does not.

        A test set with the same number of images in each class (Val, v2) may be reduced to some of its classes, such
        as those of ImageNet-100."""
        expected = self.images_per_class * num_classes if self.images_per_class else self.images
        found = [
            f"{have:,} {what} instead of {want:,}"
            for have, want, what in ((num_images, expected, "images"), (num_classes, self.classes, "classes"))
            if have != want and not (what == "classes" and self.images_per_class and num_classes < want)
        ]
        return " and ".join(found)


@cache
def read_test_sets() -> dict[str, TestSet]:
    """Reads the table of test sets, by name."""
    with (files("fakeit_eval.test_sets") / "test_sets.tsv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    numbers = ("images", "classes", "images_per_class")
    return {
        row["name"]: TestSet(**{**row, **{name: int(row[name] or 0) for name in numbers}})  # type: ignore[arg-type]
        for row in rows
    }
