"""Embeds images and texts by CLIP or a model of transformers with its methods (SigLIP, AltCLIP, …)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builders.errors import UserError
from builders.networks.revision import directory_digest
from builders.storage.hub_error import hub_error

TEXTS_AT_ONCE = 256
"""Number of texts per forward."""


class ClipEmbedder:
    """Loads an image-text model by Hub id or directory; runs in 16 bits on a GPU if there is one.

    Raises:
        UserError: the model cannot be loaded, or does not embed both images and texts.
    """

    def __init__(self, model: str, revision: str = "", *, option: str = "--clip") -> None:
        import torch
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.float16 if self._device == "cuda" else torch.float32
        options: dict[str, Any] = {"revision": revision} if revision else {}
        try:
            network = AutoModel.from_pretrained(model, dtype=dtype, **options)
            # The other backend needs torchvision and gives other pixels.
            self._images = AutoImageProcessor.from_pretrained(model, backend="pil", **options)
            self._tokenizer = AutoTokenizer.from_pretrained(model, **options)
        # transformers has no common exception for a missing connection, file or key.
        except Exception as error:
            way_out = f"give {option} a Hub id, such as openai/clip-vit-base-patch32, or a directory"
            raise hub_error(f"'{model}' cannot be loaded as a CLIP", error, model, way_out) from None
        if not (hasattr(network, "get_image_features") and hasattr(network, "logit_scale")):
            raise UserError(
                f"'{model}' is a {type(network).__name__}, which does not embed both images and texts; "
                f"give {option} a model such as openai/clip-vit-base-patch32"
            )
        self._network = network.eval().to(self._device)
        self._max_tokens = int(network.config.get_text_config().max_position_embeddings)
        self.name = Path(model).resolve().name if Path(model).is_dir() else model
        self.revision = _revision(Path(model)) if Path(model).is_dir() else str(network.config._commit_hash)
        self.logit_scale = float(network.logit_scale.detach().float().exp())

    def embed_images(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        pixels = self._images(list(images), return_tensors="pt").pixel_values
        return self._unit("get_image_features", pixel_values=pixels.to(self._device, self._network.dtype))

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        batches = [self._embed(texts[start : start + TEXTS_AT_ONCE]) for start in range(0, len(texts), TEXTS_AT_ONCE)]
        return np.concatenate(batches)

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        # SigLIP was trained on texts padded to full length; padding does not change the embeddings of CLIP.
        tokens = self._tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=self._max_tokens, return_tensors="pt"
        )
        return self._unit("get_text_features", **tokens.to(self._device))

    def _unit(self, call: str, **inputs: Any) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            found = getattr(self._network, call)(**inputs)
            embeddings = getattr(found, "pooler_output", found).float()
            return torch.nn.functional.normalize(embeddings, dim=-1).cpu().numpy()


def _revision(folder: Path) -> str:
    """Returns a digest of a directory's files; older weights (.bin) enter by size and modification time."""
    older = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.glob("*.bin"))]
    return directory_digest(str(folder)) + (f" {older}" if older else "")
