import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.classes.class_ids import class_id, class_ids, slug
from builders.classes.class_list import MAX_CLASS_ID
from builders.errors import UserError


def digest(name: str) -> str:
    return hashlib.blake2b(name.encode(), digest_size=3).hexdigest()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("R.V.", "r_v"),
        ("Café au lait", "cafe_au_lait"),
        ("T-34/85", "t_34_85"),
        ("New York", "new_york"),
        ("Ørsted", "orsted"),
        ("Cafe\u0301", "cafe"),
        ("C++", f"c_{digest('C++')}"),
        ("C#", f"c_{digest('C#')}"),
        ("北京", f"beijing_{digest('北京')}"),
        ("🐱", f"cat_{digest('🐱')}"),
        ("!?", f"class_{digest('!?')}"),
        ("x" * 99, "x" * 57 + "_" + digest("x" * 99)),
    ],
)
def test_class_ids__slugs(name: str, expected: str) -> None:
    assert slug(name) == class_id(name) == expected


def test_class_ids__different_names_have_different_ids() -> None:
    names = [
        "New York",
        "new_york",
        "new york",
        "C++",
        "C#",
        "C",
        "北京",
        "背景",
        "Orsted",
        "Ørsted",
        "🐱",
        "cat",
        "n01558993",
    ]
    found = class_ids(names)
    assert list(found) == sorted(found, key=found.__getitem__) and len(set(found.values())) == len(names)
    assert found["new_york"] == "new_york" and found["New York"] == f"new_york_{digest('New York')}"
    assert found["cat"] == "cat" and found["C"] != found["C++"]


def test_class_ids__two_spellings_of_one_name_are_rejected() -> None:
    for names in (["e\u0301", "\u00e9"], ["cat", "Cat", f"cat_{digest('Cat')}"]):
        with pytest.raises(UserError, match="are both class"):
            class_ids(names)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), unique=True))
def test_class_ids__fit_into_keys_and_are_distinct(names: list[str]) -> None:
    try:
        found = class_ids(names)
    except UserError:
        # A name is a synset, or two names are spellings that Unicode considers equal.
        return
    assert len(set(found.values())) == len(names)
    assert all(re.fullmatch(f"[a-z0-9_]{{1,{MAX_CLASS_ID}}}", identity) for identity in found.values())
