"""Zero-shot classification of embedded images: class probabilities, and which labels, senses and media they suggest.

Pure functions of arrays; every embedding has unit length.
"""

import numpy as np
from numpy.typing import NDArray

from builders.audit.text_prompts import TextPrompts

Embeddings = NDArray[np.float32]


def probabilities(embeddings: Embeddings, classes: Embeddings, logit_scale: float) -> NDArray[np.float32]:
    """Returns class probabilities (n, classes) from embeddings of images (n, d) and of class texts (classes, d)."""
    logits = logit_scale * (embeddings @ classes.T)
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    return logits


def likely_labels(found: NDArray[np.float32], thresholds: NDArray[np.float32]) -> NDArray[np.int64]:
    """Returns the class that each image confidently shows, -1 if none: confident learning (Northcutt et al., 2021).

    An image counts as a class if its probability of the class reaches the class's threshold: the mean probability of
    the class over the images labeled as it. If an image reaches several thresholds, the most probable class counts.

    Args:
        found: Probabilities (n, classes).
        thresholds: One per class, (classes,).
    """
    likely: NDArray[np.int64] = np.where(found >= thresholds, found, -1.0).argmax(axis=1)
    reaches = found[np.arange(len(found)), likely] >= thresholds[likely]
    return np.where(reaches, likely, -1)


def nearer_senses(embeddings: Embeddings, labels: NDArray[np.int64], text_prompts: TextPrompts) -> NDArray[np.int64]:
    """Returns the number (n,) of the other sense that each image matches better than its class; -1 if none."""
    nearer = np.full(len(embeddings), -1, np.int64)
    for label in np.unique(labels):
        senses = text_prompts.sense_embeddings[label]
        if len(senses):
            rows = np.flatnonzero(labels == label)
            scores = embeddings[rows] @ np.vstack([text_prompts.classes[label], senses]).T
            nearer[rows] = scores.argmax(axis=1) - 1
    return nearer


def other_media(embeddings: Embeddings, labels: NDArray[np.int64], text_prompts: TextPrompts) -> NDArray[np.int64]:
    """Returns the number (n,) of the medium that each image matches better than a photo of its class; -1 if none."""
    # (1 + media, classes, d)
    texts = np.concatenate([text_prompts.classes[None], text_prompts.media])
    scores = np.einsum("nd,mnd->nm", embeddings, texts[:, labels])
    return scores.argmax(axis=1) - 1


def swallowed(
    embeddings: Embeddings, labels: NDArray[np.int64], backgrounds: list[str], text_prompts: TextPrompts
) -> NDArray[np.bool_]:
    """Returns a mask (n,) of the images that match the text of their background better than the text of their class."""
    own = np.einsum("nd,nd->n", embeddings, text_prompts.classes[labels])
    behind = np.array(
        [
            float(vector @ text_prompts.scenes[scene]) if scene in text_prompts.scenes else -np.inf
            for vector, scene in zip(embeddings, backgrounds, strict=True)
        ]
    )
    return behind > own


def confusion(found: NDArray[np.float32], labels: NDArray[np.int64], members: list[int]) -> NDArray[np.int64]:
    """Counts the images labeled as one of `members` by label (rows) and by most probable member (columns)."""
    counts = np.zeros((len(members), len(members)), np.int64)
    rows = np.flatnonzero(np.isin(labels, members))
    given = np.searchsorted(members, labels[rows])
    np.add.at(counts, (given, found[rows][:, members].argmax(axis=1)), 1)
    return counts
