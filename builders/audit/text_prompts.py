"""What an image-text model is asked about a class: its names, their other senses, scenes, media that are no photograph."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from builders.audit.embedder import Embedder
from builders.classes.class_list import ClassEntry, read_class_table
from builders.classes.imagenet import read_parents
from builders.classes.scenes import scene_phrase
from builders.classes.wordnet import WNID, Synset, noun_senses, read_synset
from builders.errors import UserError

PHOTO = "photo"
MEDIA = ("illustration", "painting", "drawing", "cartoon", "computer graphic", "logo")
"""Beside photographs."""


@dataclass(frozen=True, kw_only=True)
class Sense:
    """Another meaning of one of a class's names."""

    wnid: str
    lemma: str
    definition: str
    text: str


@dataclass(frozen=True, kw_only=True)
class TextPrompts:
    """Texts as unit vectors of d numbers."""

    classes: NDArray[np.float32]
    """(classes, d)."""
    media: NDArray[np.float32]
    """(media, classes, d): the class in each of `MEDIA`."""
    senses: list[list[Sense]]
    """Of each class; none where WordNet does not know it."""
    sense_embeddings: list[NDArray[np.float32]]
    scenes: dict[str, NDArray[np.float32]]
    """By the name that a sample's json has."""
    note: str = ""
    """What could not be asked, and why."""


def embed_prompts(classes: Sequence[ClassEntry], scenes: Sequence[str], embedder: Embedder) -> TextPrompts:
    """The questions to a clone's classes and scenes, through a scorer."""
    media = [_embed_classes(classes, medium, embedder) for medium in MEDIA]
    senses, note = _all_senses(classes)
    embeddings = embedder.embed_texts([sense.text for found in senses for sense in found] or [""])
    ends = np.cumsum([len(found) for found in senses])
    phrases = [f"a {PHOTO} of {scene_phrase(scene)}." for scene in scenes]
    return TextPrompts(
        classes=_embed_classes(classes, PHOTO, embedder),
        media=np.stack(media),
        senses=senses,
        sense_embeddings=[embeddings[end - len(found) : end] for end, found in zip(ends, senses, strict=True)],
        scenes=dict(zip(scenes, embedder.embed_texts(phrases), strict=True)) if scenes else {},
        note=note,
    )


def with_parents(classes: Sequence[ClassEntry]) -> tuple[ClassEntry, ...]:
    """Classes with their parents' names; recipes of real images have none, and those of shipped lists are known."""
    known = {entry.wnid: entry.hypernym for entry in read_class_table("digits")}
    known |= {wnid: parents.lemmas[0][0] for wnid, parents in read_parents().items()}
    return tuple(entry if entry.hypernym else replace(entry, hypernym=known.get(entry.wnid, "")) for entry in classes)


def class_texts(entry: ClassEntry, medium: str) -> list[str]:
    """A text for each name of a class, with the parent's name, which tells a crane from a crane."""
    return [_text(lemma, entry.hypernym, medium) for lemma in entry.name.split(", ")]


def other_senses(entry: ClassEntry) -> list[Sense]:
    """Meanings of a class's names that are other synsets of nouns.

    Raises:
        UserError: WordNet's data are not installed.
    """
    if not WNID.fullmatch(entry.wnid):
        return []
    own = set(class_texts(entry, PHOTO))
    found: dict[str, Sense] = {}
    for lemma in entry.name.split(", "):
        for synset in noun_senses(lemma):
            text = _text(lemma, _parent_name(synset), PHOTO)
            if synset.wnid != entry.wnid and text not in own:
                sense = Sense(wnid=synset.wnid, lemma=lemma, definition=synset.definition, text=text)
                found.setdefault(synset.wnid, sense)
    return list(found.values())


def _all_senses(classes: Sequence[ClassEntry]) -> tuple[list[list[Sense]], str]:
    try:
        return [other_senses(entry) for entry in classes], ""
    except UserError as error:
        return [[] for _ in classes], f"other senses were not asked for: {error}"


def _embed_classes(classes: Sequence[ClassEntry], medium: str, embedder: Embedder) -> NDArray[np.float32]:
    """(classes, d): the mean over a class's names, of unit length again."""
    texts = [class_texts(entry, medium) for entry in classes]
    embeddings = embedder.embed_texts([text for found in texts for text in found])
    starts = np.cumsum([0, *(len(found) for found in texts[:-1])])
    sums = np.add.reduceat(embeddings, starts, axis=0)
    return sums / np.linalg.norm(sums, axis=1, keepdims=True)


def _text(lemma: str, hypernym: str, medium: str) -> str:
    article = "an" if re.match("[aeiou]", medium) else "a"
    return f"{article} {medium} of a {lemma}{f', {hypernym}' if hypernym else ''}."


def _parent_name(synset: Synset) -> str:
    return read_synset(synset.parents[0]).lemmas[0] if synset.parents else ""
