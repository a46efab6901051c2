import numpy as np
import pytest

from builders.errors import UserError
from fakeit_eval.tasks.base import Task, check_counts, draw_splits, read_tasks, stratified


def test_base__drawn_splits_are_stratified_disjoint_and_seeded() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    stay, drawn = stratified(labels, np.arange(100), 20, seed=0)
    assert np.bincount(labels[drawn]).tolist() == [12, 6, 2]
    assert sorted([*stay, *drawn]) == list(range(100))
    assert np.array_equal(drawn, stratified(labels, np.arange(100), 20, seed=0)[1])
    assert not np.array_equal(drawn, stratified(labels, np.arange(100), 20, seed=1)[1])


def test_base__a_class_of_one_image_stays_in_training() -> None:
    labels = np.array([0] * 10 + [1] * 10 + [2])
    stay, drawn = stratified(labels, np.arange(21), 4, seed=0)
    assert 20 in stay and 2 not in labels[drawn]


def test_base__too_few_images_are_refused() -> None:
    with pytest.raises(UserError, match="1 of 20 images cannot be drawn"):
        stratified(np.arange(20) % 10, np.arange(20), 1, seed=0)
    for labels in (np.array([0]), np.array([0, 1])):
        with pytest.raises(UserError, match=r"0 of . images cannot be drawn"):
            stratified(labels, np.arange(len(labels)), 0, seed=0)


def test_base__published_splits_are_kept() -> None:
    given = {split: np.arange(size) % 2 for split, size in (("train", 10), ("val", 6), ("test", 4))}
    drawn = draw_splits(read_tasks()["dtd"], given, seed=0)
    assert {split: (source, len(rows)) for split, ((source, rows),) in drawn.items()} == {
        "train": ("train", 10),
        "val": ("val", 6),
        "test": ("test", 4),
    }


def test_base__other_counts_are_described() -> None:
    sizes = {"train": 2569, "val": 1111, "test": 3669}
    assert check_counts(read_tasks()["pets"], sizes, 36) == (
        "2,569 train images instead of 2,570, 1,111 val images instead of 1,110, 36 classes instead of 37"
    )
    assert check_counts(Task(name="mine"), sizes, 36) == ""
