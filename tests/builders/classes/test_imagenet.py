from pathlib import Path

import pytest

from builders.classes import imagenet, write_imagenet_parents
from builders.classes.class_options import ClassOptions
from builders.classes.imagenet import imagenet_classes, read_imagenet100_wnids, read_parents
from builders.classes.wordnet import read_synset
from builders.errors import UserError


def find(wnid: str, **options: object) -> tuple[str, str]:
    (entry,) = imagenet_classes([wnid], ClassOptions(**options))  # type: ignore[arg-type]
    return entry.name, entry.hypernym


def test_imagenet__there_are_1000_classes_and_100_of_them_in_imagenet_100() -> None:
    wnids = list(read_parents())
    assert len(wnids) == 1000 and wnids == sorted(set(wnids))
    assert len(set(read_imagenet100_wnids())) == 100 and set(read_imagenet100_wnids()) < set(wnids)


def test_imagenet__names_and_hypernyms_are_those_of_the_paper() -> None:
    assert find("n01558993")[0] == "robin, American robin, Turdus migratorius"
    assert find("n02086240") == ("Shih-Tzu", "toy dog")
    assert find("n02859443") == ("boathouse", "shed")


def test_imagenet__options_choose_other_lemmas_and_parents() -> None:
    assert find("n02086240", hypernym_lemmas="all") == ("Shih-Tzu", "toy dog, toy")
    assert find("n04389033", hypernym_parent=3)[1] == "tracked vehicle"
    assert find("n02776631", hypernym_parent=9, hypernym_lemmas="all")[1] == "shop, store"
    assert find("n02859443", hypernym_parent=2)[1] == "shed"


def test_imagenet__classes_are_sorted_whatever_the_order_of_the_file() -> None:
    entries = imagenet_classes(read_imagenet100_wnids(), ClassOptions())
    assert [entry.wnid for entry in entries] == sorted(read_imagenet100_wnids()) != read_imagenet100_wnids()
    assert all(entry.definition and entry.base_count == 1300 for entry in entries)


def test_imagenet__committed_table_and_page_are_what_the_script_writes(nltk_data: Path) -> None:
    synsets = [read_synset(wnid) for wnid in read_parents()]
    folder = Path(imagenet.__file__).parent
    assert write_imagenet_parents.parents_table(synsets) == (folder / imagenet.PARENTS).read_text(encoding="utf-8")
    page = write_imagenet_parents.several_parents_page(synsets)
    assert page == write_imagenet_parents.DOCS.read_text(encoding="utf-8") and "These 38 of" in page


def test_imagenet__lemmas_and_definitions_of_timm_equal_wordnet(nltk_data: Path) -> None:
    for entry in imagenet_classes(list(read_parents()), ClassOptions()):
        synset = read_synset(entry.wnid)
        assert (", ".join(synset.lemmas), synset.definition) == (entry.name, entry.definition)


def test_imagenet__without_timm_the_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'fakeit-sd\[build\]'"):
        imagenet.timm_info("imagenet_synsets.txt")
