from pathlib import Path

import pytest

from builders.classes.class_list import read_class_table

WORDNET = Path("/usr/share/wordnet/data.noun")


def read_synset(wnid: str) -> tuple[str, str]:
    """Reads the lemmas, joined by ", ", and the first hypernym's first lemma from WordNet 3.0's own file."""
    with WORDNET.open("rb") as file:

        def fields(offset: int) -> list[str]:
            file.seek(offset)
            return file.readline().decode().split()

        synset = fields(int(wnid[1:]))
        num_words = int(synset[3], 16)
        lemmas = [word.replace("_", " ") for word in synset[4 : 4 + 2 * num_words : 2]]
        parent = fields(int(synset[synset.index("@") + 1]))
        return ", ".join(lemmas), parent[4].replace("_", " ")


def test_class_list__digits_are_zero_to_nine_in_the_order_of_their_labels() -> None:
    names = [entry.name.split(", ")[0] for entry in read_class_table("digits")]
    assert names == ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@pytest.mark.skipif(not WORDNET.exists(), reason="WordNet 3.0 is not installed; run 'make system'")
def test_class_list__digits_are_wordnet_synsets() -> None:
    for entry in read_class_table("digits"):
        assert read_synset(entry.wnid) == (entry.name, entry.hypernym)
