"""Images from all kinds of sources have the same labels, and broken ones are named in the error."""

import copy
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from builders.errors import UserError
from builders.format.manifest import Manifest
from builders.image_sets.base import ImageSet
from builders.image_sets.open_image_set import open_image_set
from tests.fakeit_eval.official import as_tar, as_zip, class_folders, image

NAMES = ["n01440764", "n01443537", "n01484850"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    class_folders(tmp_path / "sketch", NAMES)
    return tmp_path / "sketch"


def packed(folder: Path, kind: str) -> Path:
    path = folder.with_name(f"{folder.name}.{kind}")
    if kind == "zip":
        as_zip(folder, path)
    else:
        as_tar(folder, path, "w" if kind == "tar" else "w:gz")
    return path


def check(found: ImageSet) -> None:
    assert found.class_names == tuple(NAMES) and found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    grays = [int(found.decoded(number)[0].mean()) for number in range(6)]
    assert grays == pytest.approx([0, 0, 37, 37, 74, 74], abs=2)


def test_image_sets__class_folders(folder: Path) -> None:
    (folder / ".hidden").mkdir()
    (folder / "LICENSE").write_text("text")
    (folder / NAMES[0] / "readme.txt").write_text("text")
    found = open_image_set(str(folder))
    check(found)
    assert found.name == "sketch" and found.digest == open_image_set(f"{folder}/").digest


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tgz", "zip"])
def test_image_sets__archives(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKEIT_CACHE", str(folder.parent / "cache"))
    found = open_image_set(str(packed(folder, kind)))
    check(found)
    check(copy.copy(found))


def test_image_sets__archives_are_read_by_forked_workers(folder: Path) -> None:
    from torch.utils.data import DataLoader

    from builders.images.crop_batches import CroppedBatches, as_it_is, start_worker

    found = open_image_set(str(packed(folder, "zip")))
    # This process opens the archive before workers are forked.
    found.decoded(0)
    batches: Any = CroppedBatches(found, 4)
    loader: Any = DataLoader(batches, 2, num_workers=2, collate_fn=as_it_is, worker_init_fn=start_worker)
    assert np.concatenate([labels for _, labels, _ in loader]).tolist() == [0, 0, 1, 1, 2, 2]


def test_image_sets__clones(finished: tuple[Path, Manifest]) -> None:
    found = open_image_set(str(finished[0]))
    assert len(found) == finished[1].num_samples and found.digest == finished[1].digest
    assert found.decoded(3)[0].shape == (32, 32, 3) and found.decoded(3)[1] == found.labels[3]


def test_image_sets__datasets_of_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loads a directory, like any dataset that stock `datasets` can load."""
    (folder / "train").mkdir()
    for name in NAMES:
        os.rename(folder / name, folder / "train" / name)
    found = open_image_set(f"hub:{folder}@train")
    check(found)
    with pytest.raises(UserError, match=r"Should be one of \['train'\]"):
        open_image_set(f"hub:{folder}@test")
    with pytest.raises(UserError, match=r"has no test split among train; give hub:.*@train"):
        open_image_set(f"hub:{folder}")


def test_image_sets__a_hub_dataset_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="has no image column among a, b"):
        open_image_set(f"hub:{tmp_path}@train")


def test_image_sets__a_missing_hub_dataset_is_reported() -> None:
    with pytest.raises(UserError, match=r"'hub:nobody/nothing' cannot be loaded"):
        open_image_set("hub:nobody/nothing")


def test_image_sets__a_subset_keeps_its_classes(folder: Path) -> None:
    whole = open_image_set(str(folder))
    some = whole.subset(np.array([4, 1]))
    assert some.labels.tolist() == [2, 0] and some.class_names == whole.class_names and some.digest != whole.digest
    assert int(some.decoded(0)[0].mean()) == pytest.approx(74, abs=2)
    assert whole.subset(np.arange(6)) is whole


def test_image_sets__a_changed_file_changes_the_state_and_a_renamed_one_the_digest(folder: Path) -> None:
    before = open_image_set(str(folder))
    path = folder / NAMES[0] / f"{NAMES[0]}_0.JPEG"
    os.utime(path, ns=(1, 1))
    touched = open_image_set(str(folder))
    assert touched.digest == before.digest and touched.state != before.state
    path.rename(path.with_name("other.JPEG"))
    assert open_image_set(str(folder)).digest != before.digest


@pytest.mark.parametrize("image_format", ["GIF", "BMP", "PNG", "TIFF", "PPM"])
def test_image_sets__other_formats_with_the_suffix_of_a_jpeg_are_read(image_format: str, tmp_path: Path) -> None:
    image(tmp_path / "a" / "x.jpg", 1, image_format)
    assert open_image_set(str(tmp_path)).decoded(0)[0].shape == (6, 8, 3)


def test_image_sets__gray_and_cmyk_become_rgb(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for mode in ("L", "CMYK", "RGB"):
        Image.new(mode, (8, 6)).save(tmp_path / "a" / f"{mode}.jpg")
    assert all(open_image_set(str(tmp_path)).decoded(number)[0].shape == (6, 8, 3) for number in range(3))


def test_image_sets__a_decompression_bomb_is_not_decoded(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.new("1", (20000, 20000)).save(tmp_path / "a" / "bomb.png")
    with pytest.raises(UserError, match=r"bomb\.png' cannot be read"):
        open_image_set(str(tmp_path)).decoded(0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: root / "nowhere", "there is no clone, no directory of class folders and no archive"),
        (lambda root: root, "has no class folders"),
        (lambda root: _file(root / "x.tar", b"not a tar"), "archive '.*x.tar' cannot be read"),
        (lambda root: _file(root / "x.tar.gz", b"\x1f\x8b\x08"), "archive '.*x.tar.gz' cannot be read"),
        (lambda root: _file(root / "x.zip", b"PK\x03\x04"), "archive '.*x.zip' cannot be read"),
        (lambda root: _flat(root / "x.tar"), "has no images in class folders"),
    ],
)
def test_image_sets__a_path_that_is_no_image_set_is_refused(
    make: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKEIT_CACHE", str(tmp_path / ".cache"))
    with pytest.raises(UserError, match=words):
        open_image_set(str(make(tmp_path)))


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_image_sets__a_broken_member_is_named(kind: str, folder: Path) -> None:
    (folder / NAMES[1] / f"{NAMES[1]}_0.JPEG").write_bytes(b"not an image")
    with pytest.raises(UserError, match=f"{NAMES[1]}_0.JPEG' in '.*{kind}' cannot be read"):
        open_image_set(str(packed(folder, kind))).decoded(2)


def test_image_sets__a_truncated_tar_is_refused(folder: Path) -> None:
    path = packed(folder, "tar")
    content = path.read_bytes()
    with tarfile.open(path) as tar:
        last = max(member.offset_data for member in tar if member.isreg())
    path.write_bytes(content[: last + 10])
    with pytest.raises(UserError, match=r"cannot be read|is cut"):
        open_image_set(str(path))


def _file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _flat(path: Path) -> Path:
    image(path.parent / "ILSVRC2012_val_00000001.JPEG")
    with tarfile.open(path, "w") as tar:
        tar.add(path.parent / "ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000001.JPEG")
    return path


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_image_sets__damage_anywhere_in_an_archive_is_one_sentence(
    kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(folder, kind)
    content = path.read_bytes()
    for number in range(30):
        monkeypatch.setenv("FAKEIT_CACHE", str(folder.parent / f"cache{number}"))
        damaged, rng = bytearray(content), np.random.default_rng(number)
        damaged[rng.integers(0, len(content))] ^= 1 << rng.integers(0, 8)
        path.write_bytes(damaged)
        try:
            found = open_image_set(str(path))
            for location in range(len(found)):
                found.decoded(location)
        except UserError as error:
            assert "\n" not in str(error)
