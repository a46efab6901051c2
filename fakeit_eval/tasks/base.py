"""The table of transfer tasks (`tasks.tsv`, the paper's Tab. 1), and the rule by which parts that are not given are drawn.

A task is a row of the table and a module of this folder with `open_parts(task, place)`: picture sets by the part that they
are published as, "train" and "test" and perhaps "val", or "all" where nothing is split. What is not given is drawn by the
row's rule:

    given               the part is published
    class 540           so many images of every class
    share 0.2           of every class this share, rounded down, and one at least
    proportion          as many as the table says (of a user's own data a fifth), classes in proportion

A val of 0 says that the paper tells of none, and one is drawn to tune on.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from builders.errors import UserError
from fakeit_eval.image_sets.base import Labels

SPLITS = ("train", "val", "test")
TUNING_SHARE = 0.2
"""Of the training part, drawn to tune on where the paper gives no size; ours, as it does not say."""
TEST_SHARE = 0.3
"""Of a user's own images that come in one part."""
RowIndices = NDArray[np.int64]
FAMILIES = {"small": "the eight small sets", "inaturalist": "iNaturalist", "cog": "ImageNet-CoG", "offline": "offline"}


@dataclass(frozen=True, kw_only=True)
class Task:
    name: str
    family: str = ""
    """One of `FAMILIES`; "" for data of one's own."""
    probe: str = "logistic_regression"
    """The paper's: logistic_regression for small sets, sgd for large ones."""
    module: str = ""
    classes: int = 0
    train: int = 0
    val: int = 0
    test: int = 0
    """Images (Tab. 1 of the supplementary); 0 where none are expected."""
    val_rule: str = "proportion"
    test_rule: str = "proportion"

    @property
    def val_share(self) -> float:
        """Of train and val together, what is tuned on."""
        return self.val / (self.train + self.val) if self.val else TUNING_SHARE

    @property
    def test_share(self) -> float:
        """Of all images, what is tested on where no part is given."""
        return self.test / (self.train + self.val + self.test) if self.test else TEST_SHARE


@cache
def read_tasks() -> dict[str, Task]:
    """The table, by name."""
    with (files("fakeit_eval.tasks") / "tasks.tsv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    numbers = ("classes", *SPLITS)
    return {
        row["name"]: Task(**{**row, **{name: int(row[name]) for name in numbers}})  # type: ignore[arg-type]
        for row in rows
    }


def draw_splits(task: Task, given: dict[str, Labels], seed: int) -> dict[str, list[tuple[str, RowIndices]]]:
    """For train, val and test: which rows of which given part. What is drawn is drawn by the task's rules and a seed.

    Args:
        given: Labels of the parts that are published: "all", or "train", "test" and perhaps "val".

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
    """Rows that stay and rows that are drawn, by a rule of the table; `share` is of "proportion" alone.

    Raises:
        UserError: a class has too few images.
    """
    name, _, number = rule.partition(" ")
    classes, sizes = np.unique(labels[rows], return_counts=True)
    if name == "class":
        counts = np.full(len(classes), int(number))
    elif name == "share":
        counts = np.maximum(1, (sizes * float(number)).astype(int))
    # What is not the published set, and has fewer images of a class than are drawn of it, is drawn in proportion.
    if name not in ("class", "share") or (counts >= sizes).any():
        return stratified(labels, rows, round(len(rows) * share), seed)
    shuffled = np.random.RandomState(seed).permutation(rows)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    rank_in_class = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    is_drawn = rank_in_class < np.repeat(counts, sizes)
    return np.sort(by_class[~is_drawn]), np.sort(by_class[is_drawn])


def stratified(labels: Labels, rows: RowIndices, num_drawn: int, seed: int) -> tuple[RowIndices, RowIndices]:
    """Rows that stay and rows that are drawn, classes in proportion; a class of one image stays whole.

    Raises:
        UserError: what is drawn could not hold one image of each class.
    """
    from sklearn.model_selection import train_test_split

    classes, counts = np.unique(labels[rows], return_counts=True)
    is_single = np.isin(labels[rows], classes[counts < 2])
    if num_drawn < max(1, len(classes[counts > 1])) or len(rows) - is_single.sum() - num_drawn < len(
        classes[counts > 1]
    ):
        raise UserError(
            f"{num_drawn} of {len(rows)} images cannot be drawn with all of {len(classes)} classes on both sides; "
            "give a val part, or more images"
        )
    some = rows[~is_single]
    stay, drawn = train_test_split(some, test_size=num_drawn, random_state=seed, stratify=labels[some])
    return np.sort(np.concatenate([stay, rows[is_single]])), np.sort(drawn)


def check_counts(task: Task, sizes: dict[str, int], num_classes: int) -> str:
    """How the parts differ from what Tab. 1 says, in words; "" where they do not, or nothing is expected."""
    expected = {"train": task.train, "val": task.val, "test": task.test}
    if not task.val:  # what was drawn to tune on belongs to train
        sizes = {**sizes, "train": sizes["train"] + sizes["val"], "val": 0}
    found = [
        f"{sizes[split]:,} {split} images instead of {expected[split]:,}"
        for split in SPLITS
        if task.train and sizes[split] != expected[split]
    ]
    if task.classes and num_classes != task.classes:
        found.append(f"{num_classes:,} classes instead of {task.classes:,}")
    return ", ".join(found)
