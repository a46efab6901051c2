"""Scores an image by the cosine of its embedding and its prompt's, in an image-text model such as CLIP or SigLIP.

--check clip=openai/clip-vit-base-patch32:0.2

The cosine, -1 to 1, is CLIPScore without its factor (Hessel et al., 2021). A photograph and its own caption have about
0.3 in OpenAI's models; other models have other scales, so look at `check_score` of some images first.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from builders.checks.base import Score
from builders.networks.clip import ClipEmbedder
from builders.recipes.sample import Sample

TAKES_MODEL = True
MAX_PROMPTS = 10_000


def load(model: str, revision: str) -> Score:
    embedder = ClipEmbedder(model, revision, option="--check clip=MODEL")

    @lru_cache(maxsize=MAX_PROMPTS)
    def embed(prompt: str) -> NDArray[np.float32]:
        # Alone, because the last bits of an embedding depend on the number of texts beside it.
        return embedder.embed_texts([prompt])[0]

    def score(images: Sequence[NDArray[np.uint8]], samples: Sequence[Sample]) -> NDArray[np.float32]:
        texts = np.stack([embed(sample.prompt) for sample in samples])
        found: NDArray[np.float32] = np.einsum("nd,nd->n", embedder.embed_images(images), texts)
        return found

    return score
