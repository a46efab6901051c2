"""Files that users' folders hold, and what is kept of a source between commands."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders.classes.class_options import ClassOptions
from builders.cli.main import main
from builders.errors import UserError
from builders.images import source as source_module
from builders.images.folders import list_class_folders
from builders.images.source import read_source
from builders.real_images import RealImages
from tests import in_process


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FAKEIT_CACHE", str(tmp_path / "cache"))
    for name in ("cat", "dog"):
        (tmp_path / "source" / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.full((8, 8, 3), 40 * number, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "source" / name / f"{number}.jpg")
    return tmp_path / "source"


def test_source__a_broken_file_is_read_again_and_others_are_not(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "cat" / "bad.jpg").write_bytes(b"broken")
    assert [file.path for file in read_source(str(root)).broken] == ["cat/bad.jpg"]
    requested: list[str] = []

    def reads(path: str) -> tuple[str, str]:
        requested.append(path)
        return "0" * 64, ""

    monkeypatch.setattr(source_module, "_read_file", reads)
    # Newer libraries may be able to read the broken file.
    assert read_source(str(root)).broken == [] and requested == [str(root / "cat" / "bad.jpg")]


def test_source__results_are_kept_when_reading_is_interrupted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_file, requested = source_module._read_file, list[str]()

    def interrupted(path: str) -> tuple[str, str]:
        requested.append(path)
        if path.endswith("dog/1.jpg"):
            raise KeyboardInterrupt
        return read_file(path)

    monkeypatch.setattr(source_module, "_read_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_source(str(root))
    requested.clear()

    def resumed(path: str) -> tuple[str, str]:
        requested.append(path)
        return read_file(path)

    monkeypatch.setattr(source_module, "_read_file", resumed)
    assert len(read_source(str(root)).files) == 6 and len(requested) < 4


def test_source__removing_a_broken_file_does_not_change_the_recipe(root: Path, tmp_path: Path) -> None:
    (root / "cat" / "bad.jpg").write_bytes(b"broken")
    options = ("--source", root, "--skip-broken", "0.5", "--shard-size", 2)
    assert (
        in_process.call(
            main, "make", "real_images/train", tmp_path / "out", *options, "--images-per-class", 2
        ).returncode
        == 0
    )
    (root / "cat" / "bad.jpg").unlink()
    assert in_process.call(main, "make", "real_images/train", tmp_path / "out", *options).returncode == 0
    assert in_process.call(main, "verify", tmp_path / "out").returncode == 0


@pytest.mark.parametrize("words", [["--skip-broken", ".5"], ["--skip_broken=0.5"], ["--skip-broken=.5"]])
def test_source__a_share_may_be_written_in_many_ways(root: Path, words: list[str]) -> None:
    (root / "cat" / "bad.jpg").write_bytes(b"broken")
    assert in_process.call(main, "plan", "real_images/train", "--source", root, *words).returncode == 0


def test_source__an_output_that_begins_with_a_digit_is_not_a_share(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "2024out"
    monkeypatch.chdir(tmp_path)
    assert (
        in_process.call(main, "make", "real_images/train", "--skip_broken", "2024out", "--source", root).returncode == 0
    )
    assert (out / "clone.json").exists()


def test_source__text_for_the_card_is_accepted_for_a_finished_clone(root: Path, tmp_path: Path) -> None:
    command = ("make", "real_images/train", tmp_path / "out", "--source", root)
    assert in_process.call(main, *command).returncode == 0
    assert in_process.call(main, *command, "--license", "cc0-1.0", "--description", "Mine.").returncode == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "license: cc0-1.0" in card and "\nMine.\n" in card
    assert in_process.call(main, "verify", tmp_path / "out").returncode == 0


def test_folders__pipes_and_repeated_links_are_ignored(root: Path) -> None:
    os.mkfifo(root / "cat" / "pipe.jpg")
    (root / "extra").mkdir()
    (root / "extra" / "x.jpg").write_bytes((root / "cat" / "0.jpg").read_bytes())
    for name in ("a", "b"):
        (root / "dog" / name).symlink_to(root / "extra")
    (root / "dog" / "circle").symlink_to(root / "dog")
    found = list_class_folders(str(root)).images
    assert found["cat"] == ("cat/0.jpg", "cat/1.jpg", "cat/2.jpg")
    assert len(found["dog"]) == 4


def test_source__a_path_that_is_not_utf8_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "MAX_NAMED", 1)
    monkeypatch.setenv("FAKEIT_CACHE", str(tmp_path / "cache"))
    root = os.path.join(os.fsencode(tmp_path), b"r\xe9")
    os.makedirs(os.path.join(root, b"cat"))
    for name in (b"1.jpg", b"2.jpg"):
        Path(os.fsdecode(os.path.join(root, b"cat", name))).write_bytes(b"broken")
    with pytest.raises(UserError, match="all are listed in"):
        RealImages.recipe("train", ClassOptions(source=os.fsdecode(root)))


def test_source__invalid_shares_and_recipes_are_reported(root: Path) -> None:
    with pytest.raises(UserError, match=r"skip_broken is 1\.5"):
        ClassOptions(skip_broken=1.5)
    ended = in_process.call(main, "plan", "digits_sd/c_cfg2", "--skip-broken")
    assert ended.returncode == 2 and "'digits_sd' reads no images; leave out --skip-broken" in ended.stderr
    ended = in_process.call(main, "plan", "digits_sd/c_cfg2", "--background-color", "black")
    assert ended.returncode == 2 and "only real images have transparent pixels" in ended.stderr


def test_source__sheets_and_galleries_name_a_broken_file(root: Path, tmp_path: Path) -> None:
    command = ("make", "real_images/train", tmp_path / "out", "--source", root)
    assert in_process.call(main, *command).returncode == 0
    (root / "cat" / "0.jpg").write_bytes(b"broken")
    for ended in (
        in_process.call(main, "sheet", tmp_path / "out", "--real", root, "-o", tmp_path / "s.png"),
        in_process.call(main, "gallery", tmp_path / "out", "--real", root, "-o", tmp_path / "site"),
    ):
        assert ended.returncode == 2 and "0.jpg' cannot be read" in ended.stderr


def test_source__a_card_that_cannot_be_read_is_a_fault(root: Path, tmp_path: Path) -> None:
    assert in_process.call(main, "make", "real_images/train", tmp_path / "out", "--source", root).returncode == 0
    card = tmp_path / "out" / "README.md"
    card.write_text(card.read_text().replace("license: other", "license: [other"))
    ended = in_process.call(main, "verify", tmp_path / "out")
    assert ended.returncode == 1 and "the YAML of" in ended.stdout
    assert in_process.call(main, "card", tmp_path / "out").returncode == 2
    assert in_process.call(main, "plan", tmp_path / "out" / "clone.json").returncode == 0
    ended = in_process.call(main, "make", tmp_path / "out" / "clone.json", tmp_path / "again")
    assert ended.returncode == 2 and "give --source DIR" in ended.stderr
