"""Decodes latents again in 32 bits if 16 bits overflow: only the autoencoder, and only for the image that overflowed.

Invariant: an image's pixels do not depend on whether its neighbors overflowed.
"""

from typing import Any

import torch
from torch import Tensor


class SafeDecode:
    """Replaces a pipeline's `vae.decode`, which every pipeline of diffusers calls to decode."""

    def __init__(self, vae: Any) -> None:
        self.vae, self.decode = vae, vae.decode
        self.dtypes: list[str] = []
        """Floating-point type in which each image of the last batch was decoded, such as "float16"."""

    def __call__(self, latents: Tensor, *arguments: Any, **options: Any) -> Any:
        """Decodes latents (n, c, h, w) to images (n, 3, height, width), returned as the pipeline requests them."""
        dtype = self.vae.dtype
        decoded = self.decode(latents, *arguments, **options)
        images = decoded[0] if isinstance(decoded, tuple) else decoded.sample
        self.dtypes = [_name(dtype)] * len(images)
        if dtype == torch.float32:
            return decoded
        broken = ~torch.isfinite(images.flatten(1)).all(1) & torch.isfinite(latents.flatten(1)).all(1)
        for slot in broken.nonzero().flatten().tolist():
            self.vae.to(torch.float32)
            try:
                again = self.decode(latents[slot : slot + 1].float(), *arguments, **options)
            finally:
                self.vae.to(dtype)
            images[slot] = (again[0] if isinstance(again, tuple) else again.sample)[0].to(dtype)
            self.dtypes[slot] = "float32"
        return decoded


def safe_decode(pipeline: Any) -> SafeDecode | None:
    """Returns the pipeline's `SafeDecode`, which the first call installs; None without an autoencoder."""
    vae = getattr(pipeline, "vae", None)
    if vae is None:
        return None
    if not isinstance(vae.decode, SafeDecode):
        vae.decode = SafeDecode(vae)
    return vae.decode  # type: ignore[no-any-return]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
