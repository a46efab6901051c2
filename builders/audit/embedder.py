"""What the audit asks of an image-text model: pictures and texts as vectors of one space. `clip` loads the real ones."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Embedder(Protocol):
    name: str
    """As people know it: a Hub id or a directory's name."""
    revision: str
    """Pins its bytes; what is kept of its work is kept under this name."""
    logit_scale: float
    """By which cosines are multiplied before a softmax makes probabilities of them."""

    def embed_images(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """RGB pictures (height, width, 3) of any sizes as unit vectors (n, d)."""

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Texts as unit vectors (n, d)."""
