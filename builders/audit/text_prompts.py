"""Text prompts for the image-text model: names of the classes, other senses of the names, scenes, and media."""

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
"""Media other than a photograph."""


@dataclass(frozen=True, kw_only=True)
class Sense:
    """Another meaning of one of a class's names: its synset in WordNet, and the text that describes it."""

    wnid: str
    lemma: str
    definition: str
    text: str


@dataclass(frozen=True, kw_only=True)
class TextPrompts:
    """Embeddings of the texts about a clone, as unit vectors of d numbers."""

    classes: NDArray[np.float32]
    """Each class as a photograph, (classes, d)."""
    media: NDArray[np.float32]
    """Each class in each of `MEDIA`, (media, classes, d)."""
    senses: list[list[Sense]]
    """Other senses of the names of each class; empty for a class that WordNet does not know."""
    sense_embeddings: list[NDArray[np.float32]]
    """Embeddings of the senses of each class, (senses, d)."""
    scenes: dict[str, NDArray[np.float32]]
    """Embedding (d,) of each scene, by the name that the json of a sample gives."""
    note: str = ""
    """What could not be checked, and why; empty if everything was."""


def embed_prompts(classes: Sequence[ClassEntry], scenes: Sequence[str], embedder: Embedder) -> TextPrompts:
    """Embeds all texts about a clone's classes and scenes."""
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
    """Adds the names of their parents to classes that have none, if the shipped class lists know them.

    Recipes of real images have no names of parents.
    """
    known = {entry.wnid: entry.hypernym for entry in read_class_table("digits")}
    known |= {wnid: parents.lemmas[0][0] for wnid, parents in read_parents().items()}
    return tuple(entry if entry.hypernym else replace(entry, hypernym=known.get(entry.wnid, "")) for entry in classes)


def class_texts(entry: ClassEntry, medium: str) -> list[str]:
    """Returns a text for each name of a class. The parent's name in it separates the bird crane from the machine."""
    return [_text(lemma, entry.hypernym, medium) for lemma in entry.name.split(", ")]


def other_senses(entry: ClassEntry) -> list[Sense]:
    """Returns the other meanings of a class's names: noun synsets that are not the class itself.

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
        return [[] for _ in classes], f"other senses were not checked: {error}"


def _embed_classes(classes: Sequence[ClassEntry], medium: str, embedder: Embedder) -> NDArray[np.float32]:
    """Embeds each class as the normalized mean over its names, (classes, d)."""
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
