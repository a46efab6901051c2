from pathlib import Path

import pytest

from builders.classes.class_list import ClassEntry
from builders.classes.class_options import ClassOptions, with_counts
from builders.errors import UserError

CLASSES = (ClassEntry(wnid="a", name="ant"), ClassEntry(wnid="b", name="bee"))


def test_class_options__counts_are_read_with_comma_tab_or_space(tmp_path: Path) -> None:
    path = tmp_path / "counts.csv"
    for text in ("a,3\nb,5\n", "# counts\nb\t5\na\t3", "\ufeffb 5\n\na 3"):
        path.write_text(text)
        assert [entry.base_count for entry in with_counts(CLASSES, str(path))] == [3, 5]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,3", "has no count for class 'b'"),
        ("a,3\nb,5\nc,1", "counts class 'c'"),
        ("a,3\na,5", "line 2: class 'a' is counted twice"),
        ("a,x", "'a,x' is not"),
        ("a", "'a' is not"),
        ("a,0\nb,1", "has 0 images"),
        (",", "',' is not"),
        ("", "is empty"),
    ],
)
def test_class_options__counts_that_do_not_fit_are_reported(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "counts.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        with_counts(CLASSES, str(path))


def test_class_options__choices_are_checked() -> None:
    with pytest.raises(UserError, match="choose from first, all"):
        ClassOptions(hypernym_lemmas="none")
    with pytest.raises(UserError, match="numbered from 1"):
        ClassOptions(hypernym_parent=0)
