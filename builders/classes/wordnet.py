"""Reads names, hypernyms and definitions of noun synsets from WordNet 3.0 through nltk.

The offsets of WordNet 3.0 are ImageNet's wnids.
"""

import re
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

from builders.errors import UserError, missing_extra

DOWNLOAD = "python -m nltk.downloader wordnet"
WNID = re.compile(r"n\d{8}")
SYNSET = re.compile(r"\S+\.[nvars]\.\d{1,3}")
"""Names of synsets of any part of speech, so that a verb is rejected and not used as a plain name."""


@dataclass(frozen=True, kw_only=True)
class Synset:
    wnid: str
    lemmas: list[str]
    definition: str
    parents: list[str]
    """Wnids of the hypernyms, in WordNet's order. For a proper name, the class that it is an instance of."""


def is_synset(text: str) -> bool:
    """Whether a text is a wnid ("n02084071") or a synset's name ("dog.n.01")."""
    return bool(WNID.fullmatch(text) or SYNSET.fullmatch(text))


def read_synset(text: str) -> Synset:
    """Reads a noun synset by wnid or name.

    Raises:
        UserError: there is no such synset, or nltk or its WordNet data are missing.
    """
    synset = _find(text)
    return Synset(
        wnid=_wnid(synset),
        lemmas=[lemma.replace("_", " ") for lemma in synset.lemma_names()],
        definition=synset.definition(),
        parents=_parents(synset.offset()),
    )


def noun_senses(name: str) -> list[Synset]:
    """Returns all noun synsets with a name among their lemmas, the most frequent first; none if WordNet lacks the name.

    Raises:
        UserError: nltk or its WordNet data are missing.
    """
    return [read_synset(_wnid(synset)) for synset in _wordnet().synsets(name.replace(" ", "_"), pos="n")]


def parent_lemmas(synset: Synset) -> list[list[str]]:
    """Returns the lemmas of each parent."""
    return [read_synset(parent).lemmas for parent in synset.parents]


def _parents(offset: int) -> list[str]:
    """Reads the wnids of the parents from the synset's line of data.noun.

    nltk keeps pointers in a set, whose order differs from run to run.
    """
    with _wordnet().open("data.noun") as file:
        file.seek(offset)
        words = file.readline().partition(" | ")[0].split(" ")
    # offset, lexicographer file, type, number of lemmas in hexadecimal, (lemma, id)…,
    # number of pointers, (symbol, offset, …)…
    first = 4 + 2 * int(words[3], 16) + 1
    pointers = [words[start : start + 2] for start in range(first, first + 4 * int(words[first - 1]), 4)]
    hypernyms = [f"n{target}" for symbol, target in pointers if symbol == "@"]
    return hypernyms or [f"n{target}" for symbol, target in pointers if symbol == "@i"]


def _find(text: str) -> Any:
    wordnet = _wordnet()
    from nltk.corpus.reader.wordnet import WordNetError

    try:
        with warnings.catch_warnings(action="ignore"):
            found = (
                wordnet.synset_from_pos_and_offset("n", int(text[1:])) if WNID.fullmatch(text) else wordnet.synset(text)
            )
    except (WordNetError, ValueError, AssertionError, IndexError):
        found = None
    if found is None or found.pos() != "n":
        raise UserError(f"WordNet has no noun synset '{text}'; give a name such as dog.n.01, or a wnid")
    return found


@cache
def _wordnet() -> Any:
    try:
        from nltk.corpus import wordnet
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or "nltk", "build") from None
    try:
        wordnet.ensure_loaded()
    except (LookupError, OSError):
        raise UserError(f"WordNet's data are not installed, and these classes need them: {DOWNLOAD}") from None
    if wordnet.get_version() != "3.0":
        raise UserError(
            f"WordNet {wordnet.get_version()} is installed, but wnids are offsets of WordNet 3.0: {DOWNLOAD}"
        )
    return wordnet


def _wnid(synset: Any) -> str:
    return f"n{synset.offset():08d}"
