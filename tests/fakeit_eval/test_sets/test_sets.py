"""The five ImageNet test sets in their published layouts, and the test sets of digits that replace them."""

from pathlib import Path

import numpy as np
import pytest

from builders.classes.digits import load_digits_split
from builders.classes.imagenet import imagenet_names, read_imagenet100_wnids, read_parents
from builders.errors import UserError
from fakeit_eval.classify import shared_rows
from fakeit_eval.open_test_sets import OpenedSet, open_test_sets
from fakeit_eval.test_sets.base import read_test_sets
from fakeit_eval.test_sets.imagenet import as_wnids
from tests.fakeit_eval.official import as_tar, class_folders, image

WNIDS = list(read_parents())


def opened(spec: str, root: Path | str = "") -> OpenedSet:
    (found,) = open_test_sets([spec], str(root))
    return found


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("imagenet_val", "val"),
        ("imagenet_v2_matched_frequency", "imagenetv2-matched-frequency-format-val"),
        ("imagenet_v2_threshold_0_7", "imagenetv2-threshold0.7-format-val"),
        ("imagenet_v2_top_images", "imagenetv2-top-images-format-val"),
        ("imagenet_sketch", "sketch"),
        ("imagenet_r", "imagenet-r"),
        ("imagenet_a", "imagenet-a"),
    ],
)
def test_sets__are_found_below_root_or_at_their_own_path(name: str, folder: str, tmp_path: Path) -> None:
    numbered = name.startswith("imagenet_v2")
    names = ["0", "2", "999"] if numbered else [WNIDS[0], WNIDS[2], WNIDS[999]]
    class_folders(tmp_path / folder, names)
    for found in (opened(name, tmp_path), opened(f"{name}={tmp_path / folder}")):
        labels = [found.images.class_names[label] for label in found.images.labels]
        assert labels == [wnid for wnid in (WNIDS[0], WNIDS[2], WNIDS[999]) for _ in range(2)]
        assert found.images.name == name and found.row is not None and found.row.name == name


def test_sets__numbered_folders_are_sorted_by_number(tmp_path: Path) -> None:
    class_folders(tmp_path / "v2", ["10", "2", "100"], count=1)
    found = opened(f"imagenet_v2_top_images={tmp_path / 'v2'}")
    for number in range(3):
        name = found.images.class_names[found.images.labels[number]]
        gray = int(found.images.decoded(number)[0].mean())
        assert {WNIDS[10]: 0, WNIDS[2]: 37, WNIDS[100]: 74}[name] == pytest.approx(gray, abs=2)


def test_sets__archives_below_root_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKEIT_CACHE", str(tmp_path / "cache"))
    class_folders(tmp_path / "work" / "imagenet-r", WNIDS[:2])
    as_tar(tmp_path / "work" / "imagenet-r", tmp_path / "imagenet-r.tar")
    assert len(opened("imagenet_r", tmp_path).images) == 4


def test_sets__class_names_by_lemmas_become_wnids() -> None:
    lemmas = [imagenet_names()[wnid] for wnid in WNIDS]
    assert len(set(lemmas)) < 1000 and list(as_wnids(tuple(lemmas), "")) == WNIDS
    with pytest.raises(UserError, match="class 'crane' of 'here' is no class of ImageNet-1K"):
        # Two classes are called "crane".
        as_wnids(("crane", lemmas[0]), "here")
    with pytest.raises(UserError, match="class 'dog'"):
        as_wnids(("dog",), "here")


def test_sets__a_difference_in_counts_is_described() -> None:
    rows = read_test_sets()
    assert rows["imagenet_sketch"].difference(50889, 1000) == ""
    assert (
        rows["imagenet_sketch"].difference(50888, 999)
        == "50,888 images instead of 50,889 and 999 classes instead of 1,000"
    )
    # The classes of ImageNet-100.
    assert rows["imagenet_val"].difference(5000, 100) == ""
    assert rows["imagenet_val"].difference(4999, 100) == "4,999 images instead of 5,000"
    assert rows["imagenet_r"].difference(30000, 200) == rows["imagenet_a"].difference(7500, 200) == ""


def test_sets__an_unsorted_val_is_refused(tmp_path: Path) -> None:
    image(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG")
    for spec, root in (("imagenet_val", tmp_path), (f"imagenet_val={tmp_path / 'val'}", "")):
        with pytest.raises(UserError, match="are not in class folders; sort them with"):
            opened(spec, root)


def test_sets__a_missing_test_set_is_reported(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match=r"'imagenet_a' is not in .* give its path: --data imagenet_a=PATH"):
        opened("imagenet_a", tmp_path)
    with pytest.raises(UserError, match="'imagenet_a' needs the directory of its files; give --root DIR"):
        opened("imagenet_a")


def test_sets__models_of_imagenet_100_are_tested_on_their_classes() -> None:
    known = read_imagenet100_wnids()
    labels = np.repeat(np.arange(1000), 2)
    rows = shared_rows(labels, WNIDS, known)
    assert len(rows) == 200 and {WNIDS[label] for label in labels[rows]} == set(known)


def test_digits__five_test_sets_replace_imagenets_five() -> None:
    found = open_test_sets(["digits"], "")
    assert [one.row.name for one in found if one.row] == [
        name for name in read_test_sets() if name.startswith("digits")
    ]
    assert all(one.difference == "" for one in found)
    assert len({one.row.stands_for for one in found if one.row}) == 5
    real = load_digits_split("test")[1]
    assert len(found[0].images) == len(real) == 597


def test_digits__are_reproducible_and_differ_from_each_other() -> None:
    first, second = open_test_sets(["digits"], ""), open_test_sets(["digits"], "")
    assert [one.images.digest for one in first] == [one.images.digest for one in second]
    assert len({one.images.digest for one in first}) == 5
    clean, others = first[0].images, first[1:3]
    for one in others:
        assert one.images.labels.tolist() == clean.labels.tolist()
        assert not np.array_equal(one.images.decoded(0)[0], clean.decoded(0)[0])


def test_sets__are_found_next_to_inaturalists_folders(tmp_path: Path) -> None:
    class_folders(tmp_path / "val", WNIDS[:2])
    image(tmp_path / "2018" / "Plantae" / "0" / "a.jpg")
    image(tmp_path / "2019" / "Plantae" / "0" / "a.jpg")
    assert len(opened("imagenet_val", tmp_path).images) == 4
    with pytest.raises(UserError, match="'imagenet_r' is not in"):
        opened("imagenet_r", tmp_path)
