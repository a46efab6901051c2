"""Image-text models for tests: they need no training and have the interface of `builders.audit.embedder.Embedder`."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from builders.audit.text_prompts import MEDIA, PHOTO, class_texts
from builders.classes.class_list import ClassEntry

SIDE = 12


class WordEmbedder:
    """Embeds each text as a random vector of its own, and each image as noise."""

    name, revision, logit_scale = "words", "1", 10.0

    def embed_images(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        return np.stack([_unit(np.random.default_rng(int(image.sum())).normal(size=16)) for image in images])

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) for text in texts]
        return np.stack([_unit(np.random.default_rng(seed).normal(size=16)) for seed in seeds])


class PrototypeEmbedder:
    """Embeds the text of a class as the mean of example images; the text of its drawing is the negative."""

    name, revision, logit_scale = "prototypes", "1", 30.0

    def __init__(self, classes: Sequence[ClassEntry], examples: dict[str, list[NDArray[np.uint8]]]) -> None:
        self.texts: dict[str, NDArray[np.float32]] = {}
        for entry in classes:
            mean = np.mean([_small(image) for image in examples[entry.wnid]], axis=0)
            for text in class_texts(entry, PHOTO):
                self.texts[text] = _unit(mean)
            for text in class_texts(entry, "drawing"):
                self.texts[text] = _unit(-mean)

    def embed_images(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        return np.stack([_unit(_small(image)) for image in images])

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([self.texts.get(text, np.zeros(SIDE * SIDE, np.float32)) for text in texts]) + 1e-6


def _small(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns a small gray version of an image, flattened, with mean zero."""
    small = np.asarray(Image.fromarray(image).convert("L").resize((SIDE, SIDE)), np.float32).ravel()
    return small - small.mean()


def _unit(vector: NDArray[np.float64] | NDArray[np.float32]) -> NDArray[np.float32]:
    return (vector / max(float(np.linalg.norm(vector)), 1e-6)).astype(np.float32)


assert "drawing" in MEDIA
