"""What an image-text model makes of pictures that are given as vectors: probabilities, and what they say of labels.

Pure functions of arrays; every vector has unit length.
"""

import numpy as np
from numpy.typing import NDArray

from builders.audit.text_prompts import TextPrompts

Embeddings = NDArray[np.float32]


def probabilities(embeddings: Embeddings, classes: Embeddings, logit_scale: float) -> NDArray[np.float32]:
    """Zero-shot class probabilities (n, classes) of pictures (n, d) and class texts (classes, d)."""
    logits = logit_scale * (embeddings @ classes.T)
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    return logits


def likely_labels(found: NDArray[np.float32], thresholds: NDArray[np.float32]) -> NDArray[np.int64]:
    """The class that each picture confidently is, -1 where it is none: confident learning (Northcutt et al., 2021).

    A picture counts as a class if its probability (n, classes) reaches the class's threshold, the mean probability of the
    class over the pictures labelled so; of several, the most probable.
    """
    likely: NDArray[np.int64] = np.where(found >= thresholds, found, -1.0).argmax(axis=1)
    reaches = found[np.arange(len(found)), likely] >= thresholds[likely]
    return np.where(reaches, likely, -1)


def nearer_senses(embeddings: Embeddings, labels: NDArray[np.int64], text_prompts: TextPrompts) -> NDArray[np.int64]:
    """The number of the other sense that each picture shows rather than its class; -1 where none."""
    nearer = np.full(len(embeddings), -1, np.int64)
    for label in np.unique(labels):
        senses = text_prompts.sense_embeddings[label]
        if len(senses):
            rows = np.flatnonzero(labels == label)
            scores = embeddings[rows] @ np.vstack([text_prompts.classes[label], senses]).T
            nearer[rows] = scores.argmax(axis=1) - 1
    return nearer


def other_media(embeddings: Embeddings, labels: NDArray[np.int64], text_prompts: TextPrompts) -> NDArray[np.int64]:
    """The number of the medium that each picture is rather than a photograph of its class; -1 where none."""
    requested = np.concatenate([text_prompts.classes[None], text_prompts.media])  # (1 + media, classes, d)
    scores = np.einsum("nd,mnd->nm", embeddings, requested[:, labels])
    return scores.argmax(axis=1) - 1


def swallowed(
    embeddings: Embeddings, labels: NDArray[np.int64], backgrounds: list[str], text_prompts: TextPrompts
) -> NDArray[np.bool_]:
    """Whether a picture's text of its background scores above the text of its class."""
    own = np.einsum("nd,nd->n", embeddings, text_prompts.classes[labels])
    behind = np.array(
        [
            float(vector @ text_prompts.scenes[scene]) if scene in text_prompts.scenes else -np.inf
            for vector, scene in zip(embeddings, backgrounds, strict=True)
        ]
    )
    return behind > own


def confusion(found: NDArray[np.float32], labels: NDArray[np.int64], members: list[int]) -> NDArray[np.int64]:
    """(members, members): of the pictures labelled as one of some classes, how many look most like each of them."""
    counts = np.zeros((len(members), len(members)), np.int64)
    rows = np.flatnonzero(np.isin(labels, members))
    given = np.searchsorted(members, labels[rows])
    np.add.at(counts, (given, found[rows][:, members].argmax(axis=1)), 1)
    return counts
