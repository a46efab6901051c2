"""The table of test sets with training classes (`test_sets.tsv`), and what is expected of each.

A test set is a row of the table and a module of this folder with `open_set(row, place)`.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

DOMAINS = {
    "near": "Val, v2",
    "far": "Sketch, R, A",
}
"""The first two groups of the paper's feature analysis (supplementary, section 3.3)."""


@dataclass(frozen=True, kw_only=True)
class TestSet:
    __test__ = False  # for pytest

    name: str
    domain: str
    """One of `DOMAINS`."""
    module: str
    prefix: str
    """Beginning of the name of its folder or archive below --root; "" needs no files."""
    images: int
    classes: int
    images_per_class: int
    """0 where classes differ in it."""
    stands_for: str
    """The set of ImageNet whose part it plays where there is none."""

    @property
    def family(self) -> str:
        """The data set: its variants are averaged before groups are."""
        return "imagenet_v2" if self.name.startswith("imagenet_v2") else self.name

    def difference(self, num_images: int, num_classes: int) -> str:
        """How a set at hand differs from the published one, in words; "" where it does not.

        The classes of a set with as many images in each (Val, v2) may be a part of them, such as those of ImageNet-100.
        """
        expected = self.images_per_class * num_classes if self.images_per_class else self.images
        found = [
            f"{have:,} {what} instead of {want:,}"
            for have, want, what in ((num_images, expected, "images"), (num_classes, self.classes, "classes"))
            if have != want and not (what == "classes" and self.images_per_class and num_classes < want)
        ]
        return " and ".join(found)


@cache
def read_test_sets() -> dict[str, TestSet]:
    """The table, by name."""
    with (files("fakeit_eval.test_sets") / "test_sets.tsv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    numbers = ("images", "classes", "images_per_class")
    return {
        row["name"]: TestSet(**{**row, **{name: int(row[name] or 0) for name in numbers}})  # type: ignore[arg-type]
        for row in rows
    }
