"""The interface of an image-text model for the audit: it embeds images and texts in one space. `clip` implements it."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Embedder(Protocol):
    name: str
    """Hub id or directory name, as reports show it."""
    revision: str
    """Identifies the exact weights; cached embeddings are stored under it."""
    logit_scale: float
    """Factor that multiplies cosines before the softmax that gives probabilities."""

    def embed_images(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Embeds n RGB images (height, width, 3) of any sizes as unit vectors (n, d)."""

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeds n texts as unit vectors (n, d)."""
