"""The table of transfer tasks (`tasks.tsv`, the paper's Tab. 1), and the random splits of tasks without published ones.

A task is a row of the table and a module of this folder with `open_splits(task, data_root)`. That function returns the
image sets of the published splits: "train", "test" and perhaps "val", or "all" if there are none. A missing split is
drawn by the rule in the row:

    given               the split is published, and nothing is drawn
    class 540           540 images of every class
    share 0.2           20 % of every class, rounded down, but at least one image
    proportion          as many images as the table says, stratified by class; of user data, a fixed fraction

`val = 0`: the paper gives no validation size; a fifth of train is held out for tuning.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from builders.errors import UserError
from builders.image_sets.base import Labels

SPLITS = ("train", "val", "test")
TUNING_SHARE = 0.2
"""Fraction of train that is held out for tuning if the paper gives no size; the fraction is our choice."""
TEST_SHARE = 0.3
"""Fraction of a user's own images that is held out for testing if they are not split."""
RowIndices = NDArray[np.int64]
"""Indices (n,) of images."""
FAMILIES = {"small": "the eight small sets", "inaturalist": "iNaturalist", "cog": "ImageNet-CoG", "offline": "offline"}
"""Families of tasks, and their names in text."""


@dataclass(frozen=True, kw_only=True)
class Task:
    name: str
    family: str = ""
    """One of `FAMILIES`; "" for a user's own data."""
    probe: str = "logistic_regression"
    """The paper's probe: logistic_regression for small datasets, sgd for large ones."""
    module: str = ""
    """Module of fakeit_eval/tasks that opens it; "" for a user's own data."""
    classes: int = 0
    """Number of classes; 0 if any number is accepted."""
    train: int = 0
    val: int = 0
    test: int = 0
    """Numbers of images (Tab. 1 of the supplementary); 0 if any number is accepted, and see above for val."""
    val_rule: str = "proportion"
    test_rule: str = "proportion"
    """How val and test are drawn if they are not published."""

    @property
    def val_share(self) -> float:
        """Fraction of train and val together that is val."""
        return self.val / (self.train + self.val) if self.val else TUNING_SHARE

    @property
    def test_share(self) -> float:
        """Fraction of all images that is test."""
        return self.test / (self.train + self.val + self.test) if self.test else TEST_SHARE


@cache
def read_tasks() -> dict[str, Task]:
    """Reads the table of tasks, by name."""
    with (files("fakeit_eval.tasks") / "tasks.tsv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    numbers = ("classes", *SPLITS)
    return {
        row["name"]: Task(**{**row, **{name: int(row[name]) for name in numbers}})  # type: ignore[arg-type]
        for row in rows
    }


def draw_splits(task: Task, given: dict[str, Labels], seed: int) -> dict[str, list[tuple[str, RowIndices]]]:
    """Makes train, val and test from the published splits, and draws the missing ones by the task's rules.

    Args:
        given: Labels of the published splits: "all", or "train", "test" and perhaps "val".
        seed: Seed of the random splits.

    Returns:
        For each of train, val and test, the published split that it is taken from, and the indices of its images there.

    Raises:
        UserError: a class has too few images to draw from.
    """
    source = "all" if "all" in given else "train"
    rows = np.arange(len(given[source]))
    found: dict[str, list[tuple[str, RowIndices]]] = {}
    if source == "all":
        rows, test = draw(task.test_rule, given["all"], rows, task.test_share, seed)
        found["test"] = [("all", test)]
    else:
        found["test"] = [("test", np.arange(len(given["test"])))]
    if "val" in given:
        found["val"] = [("val", np.arange(len(given["val"])))]
    else:
        rows, val = draw(task.val_rule, given[source], rows, task.val_share, seed)
        found["val"] = [(source, val)]
    return {**found, "train": [(source, rows)]}


def draw(rule: str, labels: Labels, rows: RowIndices, share: float, seed: int) -> tuple[RowIndices, RowIndices]:
    """Draws some of `rows` by a rule of the table.

    Args:
        rule: One of the rules in the table, such as "class 540".
        labels: Labels of all images.
        rows: Indices of the images to draw from.
        share: Fraction to draw by the rule "proportion"; other rules fall back to it if a class is too small.

    Returns:
        The sorted indices that stay, and those that are drawn.

    Raises:
        UserError: a class has too few images.
    """
    name, _, number = rule.partition(" ")
    classes, sizes = np.unique(labels[rows], return_counts=True)
    if name == "class":
        counts = np.full(len(classes), int(number))
    elif name == "share":
        counts = np.maximum(1, (sizes * float(number)).astype(int))
    # A dataset that is not the published one may have too few images of a class for the rule.
    if name not in ("class", "share") or (counts >= sizes).any():
        return stratified(labels, rows, round(len(rows) * share), seed)
    shuffled = np.random.RandomState(seed).permutation(rows)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    rank_in_class = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    is_drawn = rank_in_class < np.repeat(counts, sizes)
    return np.sort(by_class[~is_drawn]), np.sort(by_class[is_drawn])


def stratified(labels: Labels, rows: RowIndices, num_drawn: int, seed: int) -> tuple[RowIndices, RowIndices]:
    """Draws `num_drawn` of `rows`, stratified by class; a class with a single image is not drawn from.

    Returns:
        The sorted indices that stay, and those that are drawn.

    Raises:
        UserError: there are too few images for each class to be on both sides.
    """
    from sklearn.model_selection import train_test_split

    classes, counts = np.unique(labels[rows], return_counts=True)
    is_single = np.isin(labels[rows], classes[counts < 2])
    if num_drawn < max(1, len(classes[counts > 1])) or len(rows) - is_single.sum() - num_drawn < len(
        classes[counts > 1]
    ):
        raise UserError(
            f"{num_drawn} of {len(rows)} images cannot be drawn so that all {len(classes)} classes are on both sides; "
            "give a val split, or more images"
        )
    some = rows[~is_single]
    stay, drawn = train_test_split(some, test_size=num_drawn, random_state=seed, stratify=labels[some])
    return np.sort(np.concatenate([stay, rows[is_single]])), np.sort(drawn)


def check_counts(task: Task, sizes: dict[str, int], num_classes: int) -> str:
    """How the sizes of the splits differ from Tab. 1, in words; "" if they do not, or for tasks that are not in it."""
    expected = {"train": task.train, "val": task.val, "test": task.test}
    # Tab. 1 counts images that we hold out for tuning as train.
    if not task.val:
        sizes = {**sizes, "train": sizes["train"] + sizes["val"], "val": 0}
    found = [
        f"{sizes[split]:,} {split} images instead of {expected[split]:,}"
        for split in SPLITS
        if task.train and sizes[split] != expected[split]
    ]
    if task.classes and num_classes != task.classes:
        found.append(f"{num_classes:,} classes instead of {task.classes:,}")
    return ", ".join(found)
