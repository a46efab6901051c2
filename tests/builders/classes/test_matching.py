import pytest

from builders.classes.matching import match_classes
from builders.errors import UserError

IDS = ("new_york", "orsted", "c_d41d8c", "n02012849", "n03126707")
NAMES = ("New York", "Ørsted", "C++", "crane", "crane")


def match(*names: str) -> list[int | None]:
    return match_classes(names, (), IDS, NAMES)


def test_matching__matches_by_id_then_name_then_slug() -> None:
    assert match("orsted", "NEW YORK", "C++", "n03126707", "Oslo") == [1, 0, 2, 4, None]
    assert match_classes(["x1", "x2"], ["new-york", "Orsted"], IDS, NAMES) == [0, 1]
    # The id is tried before the name.
    assert match_classes(["new_york"], ["Ørsted"], IDS, NAMES) == [0]


def test_matching__matches_by_a_single_lemma_of_a_wnid() -> None:
    names = ("tench, Tinca tinca", "great white shark, white shark", "Cardigan, Cardigan Welsh corgi", "cardigan")
    ids = ("n01440764", "n01484850", "n02113186", "n02963159")
    for given in (["tench", "white shark"], ["Tinca_tinca", "great-white-shark"]):
        assert match_classes(given, (), ids, names) == [0, 1]
    # A whole name is tried before single lemmas.
    assert match_classes(["cardigan"], (), ids, names) == [3]
    with pytest.raises(UserError, match="are both class 'n01440764'"):
        match_classes(["tench", "Tinca_tinca"], (), ids, names)


def test_matching__a_model_without_names_matches_by_id() -> None:
    assert match_classes(["New York", "C++"], (), IDS) == [0, None]


def test_matching__ambiguous_classes_are_rejected() -> None:
    with pytest.raises(UserError, match="class 'crane' of 'the data' may be n02012849 or n03126707"):
        match("crane")
    with pytest.raises(UserError, match="classes 'New York' and 'new_york' of 'the data' are both class 'new_york'"):
        match("New York", "new_york")
