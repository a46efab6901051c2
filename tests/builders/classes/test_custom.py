from pathlib import Path

import pytest

from builders.classes.class_ids import class_id
from builders.classes.class_options import ClassOptions
from builders.classes.custom import custom_classes
from builders.errors import UserError


def read(path: Path) -> list[tuple[str, str, str]]:
    return [(e.wnid, e.name, e.hypernym) for e in custom_classes(ClassOptions(source=str(path)))]


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "classes.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_custom__real_images_of_a_synset_have_the_id_of_their_clone(nltk_data: Path) -> None:
    assert class_id("dog.n.01") == class_id("n02084071") == "n02084071"
    with pytest.raises(UserError, match=r"no noun synset 'run\.v\.01'"):
        class_id("run.v.01")


def test_custom__a_file_may_mix_names_synsets_and_wnids(tmp_path: Path, nltk_data: Path) -> None:
    path = write(tmp_path, "# vehicles and animals\nR.V.\ncat.n.01\nn02084071\nkei car\tcar\ta small car\n")
    assert read(path) == [
        ("kei_car", "kei car", "car"),
        ("n02084071", "dog, domestic dog, Canis familiaris", "canine"),
        ("n02121620", "cat, true cat", "feline"),
        ("r_v", "R.V.", ""),
    ]


def test_custom__a_proper_name_has_the_class_it_is_an_instance_of(tmp_path: Path, nltk_data: Path) -> None:
    assert read(write(tmp_path, "einstein.n.01"))[0][2] == "physicist"


def test_custom__class_folders_may_be_names_and_wnids(tmp_path: Path, nltk_data: Path) -> None:
    for name in ("golden_retriever", "n02121620"):
        (tmp_path / name).mkdir()
    assert read(tmp_path) == [("golden_retriever", "golden retriever", ""), ("n02121620", "cat, true cat", "feline")]
    assert [class_id(name) for name in ("golden_retriever", "n02121620")] == ["golden_retriever", "n02121620"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cat\ncat", "'cat' and 'cat' are both class 'cat'"),
        ("dog.n.01\nn02084071", "are both class 'n02084071'"),
        ("nodog.n.01", "no noun synset 'nodog.n.01'"),
        ("n00000001", "no noun synset 'n00000001'"),
        ("n99999999", "no noun synset 'n99999999'"),
        ("dog.n.99", "no noun synset 'dog.n.99'"),
        ("x\n\n# y\na\tb\tc\td", "line 4: .* more than a name"),
        ("", "is empty"),
    ],
)
def test_custom__mistakes_are_reported(tmp_path: Path, nltk_data: Path, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read(write(tmp_path, text))


def test_custom__a_source_is_required(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give --source"):
        custom_classes(ClassOptions())
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path / "no.txt")
    with pytest.raises(UserError, match="has no class folders"):
        read(tmp_path)
