"""Tests the texts about a class, and the other meanings of its names in WordNet."""

from pathlib import Path

import pytest

from builders.audit import text_prompts
from builders.audit.text_prompts import class_texts, embed_prompts, other_senses
from builders.classes.class_list import ClassEntry
from builders.classes.wordnet import DOWNLOAD, Synset
from builders.errors import UserError
from tests.builders.audit.embedders import WordEmbedder

CRANE = ClassEntry(wnid="n02012849", name="crane", hypernym="wading bird", definition="a long-necked wading bird")


def test_class_texts__name_the_parent_for_each_lemma() -> None:
    entry = ClassEntry(wnid="n1", name="papillon, butterfly dog", hypernym="toy spaniel")
    assert class_texts(entry, "photo") == [
        "a photo of a papillon, toy spaniel.",
        "a photo of a butterfly dog, toy spaniel.",
    ]
    assert class_texts(entry, "illustration")[0] == "an illustration of a papillon, toy spaniel."


def test_other_senses__of_a_crane_include_the_machine(nltk_data: Path) -> None:
    found = other_senses(CRANE)
    assert "lifts and moves heavy objects" in next(one.definition for one in found if one.wnid == "n03126707")
    assert CRANE.wnid not in {sense.wnid for sense in found}
    assert all(sense.text.startswith("a photo of a crane, ") for sense in found)


def test_other_senses__of_a_class_without_a_wnid_are_none() -> None:
    assert other_senses(ClassEntry(wnid="crane", name="crane")) == []


def test_embed_prompts__without_wordnet_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> list[Synset]:
        raise UserError(f"WordNet's data are not installed, and these classes need them: {DOWNLOAD}")

    monkeypatch.setattr(text_prompts, "noun_senses", missing)
    prompts = embed_prompts([CRANE], ["sky"], WordEmbedder())
    assert prompts.senses == [[]] and prompts.note.startswith("other senses were not checked: WordNet's data")
    assert prompts.classes.shape == (1, 16) and list(prompts.scenes) == ["sky"]
