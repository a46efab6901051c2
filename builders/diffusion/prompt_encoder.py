"""Turns prompts into the arguments of a pipeline's call: embeds them in batches of one shape, behind a bounded cache.

Invariant: a prompt's embedding depends on the prompt alone, not on earlier prompts or on the others of its batch.
365,000 different prompts need no more memory than the cache may hold.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from cachetools import LRUCache
from torch import Tensor

from builders.diffusion.families import EMBEDDINGS
from builders.errors import UserError

CACHE_BYTES = 256 * 1024 * 1024
ENCODE_BATCH = 8
"""Prompts embedded together. Smaller batches are padded, because an embedding's last bits depend on the shape."""

Embedding = dict[str, Tensor]
"""One prompt's tensors by keyword of the pipeline's call: (tokens, width), or (width,) if pooled."""


class PromptEncoder:
    """Callable: prompt_encoder(prompts) returns those keyword arguments of the pipeline's call that prompts decide.

    Raises:
        UserError: a negative prompt is given, but the pipeline takes none.
    """

    def __init__(self, pipeline: Any, negative_prompt: str, *, is_guided: bool) -> None:
        self._pipeline = pipeline
        self._names = EMBEDDINGS.get(type(pipeline).__name__)
        self._cache: LRUCache[str, Embedding] = LRUCache(
            CACHE_BYTES, getsizeof=lambda rows: sum(tensor.nbytes for tensor in rows.values())
        )
        takes_negative = self._takes_negative()
        if negative_prompt and is_guided and not takes_negative:
            raise UserError(f"a {type(pipeline).__name__} takes no negative prompt; leave --negative-prompt out")
        self._negative_prompt = negative_prompt if is_guided and takes_negative else None
        self._negative: Embedding = {}
        if self._names and self._negative_prompt is not None:
            self._negative = self._encode([""], negative_prompt=self._negative_prompt)[0]

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[str]) -> dict[str, Any]:
        """Returns embeddings (n, tokens, width) and pooled ones (n, width) by keyword, or the n prompts as text."""
        if self._names is None:
            negative = (
                {} if self._negative_prompt is None else {"negative_prompt": [self._negative_prompt] * len(prompts)}
            )
            return {"prompt": list(prompts), **negative}
        found = {prompt: self._cache[prompt] for prompt in prompts if prompt in self._cache}
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in found]
        for start in range(0, len(missing), ENCODE_BATCH):
            batch = missing[start : start + ENCODE_BATCH]
            found.update(zip(batch, self._encode(batch), strict=True))
        for prompt in missing:
            self._cache[prompt] = found[prompt]
        rows = [{**self._negative, **found[prompt]} for prompt in prompts]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def _takes_negative(self) -> bool:
        if self._names is None:
            return "negative_prompt" in inspect.signature(self._pipeline.__call__).parameters
        return "negative_prompt_embeds" in self._names

    @torch.inference_mode()
    def _encode(self, prompts: Sequence[str], negative_prompt: str | None = None) -> list[Embedding]:
        """Returns the embedding of each prompt (at most `ENCODE_BATCH`), or of the negative prompt if one is given."""
        assert self._names is not None
        parameters = inspect.signature(self._pipeline.encode_prompt).parameters
        filled = [*prompts, *[""] * (ENCODE_BATCH - len(prompts))]
        options: dict[str, Any] = {"prompt": filled, "device": self._pipeline.device, "num_images_per_prompt": 1}
        options |= {name: None for name in ("prompt_2", "prompt_3") if name in parameters}
        if "do_classifier_free_guidance" in parameters:
            options |= {
                "do_classifier_free_guidance": negative_prompt is not None,
                # None selects the pipeline's own empty negative prompt, which is all zeros in SDXL.
                "negative_prompt": [negative_prompt] * len(filled) if negative_prompt else None,
            }
        tensors = dict(zip(self._names, self._pipeline.encode_prompt(**options), strict=False))
        wanted = [name for name in tensors if name.startswith("negative") == (negative_prompt is not None)]
        return [{name: tensors[name][row].clone() for name in wanted} for row in range(len(prompts))]
