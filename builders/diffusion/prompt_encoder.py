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

from builders.diffusion.family import Family
from builders.recipes.recipe import Recipe

CACHE_BYTES = 256 * 1024 * 1024
ENCODE_BATCH = 8
"""Prompts embedded together. Smaller batches are padded, because an embedding's last bits depend on the shape."""

Embedding = dict[str, Tensor]
"""One prompt's tensors by keyword of the pipeline's call: (tokens, width), or (width,) if pooled."""


class PromptEncoder:
    """Callable: prompt_encoder(prompts) returns those keyword arguments of the pipeline's call that prompts decide."""

    def __init__(self, pipeline: Any, family: Family, recipe: Recipe) -> None:
        self._pipeline, self._family = pipeline, family
        self._parameters = inspect.signature(pipeline.encode_prompt).parameters if family.embeddings else {}
        self._cache: LRUCache[str, Embedding] = LRUCache(
            CACHE_BYTES, getsizeof=lambda rows: sum(tensor.nbytes for tensor in rows.values())
        )
        call = inspect.signature(pipeline.__call__).parameters
        # Where both have a default, the call's counts: Sana's instruction to its text encoder is one.
        self._call_defaults = {
            name: parameter.default
            for name, parameter in call.items()
            if not name.endswith(("prompt", "prompt_2", "prompt_3", "per_prompt"))
            and parameter.default not in (None, parameter.empty)
        }
        self._no_text: dict[str, None] = {"negative_prompt": None} if "negative_prompt" in call else {}
        """Replaces the default of pipelines that refuse an empty text beside embeddings."""
        self._negative_prompt = recipe.negative_prompt if family.is_negative_used(recipe) else None
        self._negative: Embedding = {}
        if family.embeddings and self._negative_prompt is not None:
            self._negative = self._encode_negative(self._negative_prompt)

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[str]) -> dict[str, Any]:
        """Returns embeddings (n, tokens, width) and pooled ones (n, width) by keyword, or the n prompts as text."""
        if not self._family.embeddings:
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
        return {**self._no_text, **{name: torch.stack([row[name] for row in rows]) for name in rows[0]}}

    def _encode(self, prompts: Sequence[str]) -> list[Embedding]:
        """Returns the embedding of each prompt (at most `ENCODE_BATCH`)."""
        guidance = {"do_classifier_free_guidance": False} if self._takes("negative_prompt") else {}
        rows = self._run([*prompts, *[""] * (ENCODE_BATCH - len(prompts))], **guidance)
        return [
            {name: tensor[row].clone() for name, tensor in rows.items() if not name.startswith("negative")}
            for row in range(len(prompts))
        ]

    def _encode_negative(self, negative_prompt: str) -> Embedding:
        if not self._takes("negative_prompt"):
            # Pipelines with a second scale encode negative prompts as they encode prompts.
            (found,) = self._encode([negative_prompt])
            return {f"negative_{name}": tensor for name, tensor in found.items()}
        # The default stands for the pipeline's own empty negative prompt, which is all zeros in SDXL.
        empty = self._parameters["negative_prompt"].default
        texts = [negative_prompt] * ENCODE_BATCH if negative_prompt else empty
        rows = self._run([""] * ENCODE_BATCH, do_classifier_free_guidance=True, negative_prompt=texts)
        return {name: tensor[0].clone() for name, tensor in rows.items() if name.startswith("negative")}

    @torch.inference_mode()
    def _run(self, prompts: list[str], **options: Any) -> dict[str, Tensor]:
        """Calls the pipeline's `encode_prompt`; returns its tensors (`ENCODE_BATCH`, …) by keyword."""
        options |= {name: None for name in ("prompt_2", "prompt_3") if self._takes(name)}
        options |= {name: value for name, value in self._call_defaults.items() if self._takes(name)}
        options |= {name: value for name, value in self._family.encode_options.items() if self._takes(name)}
        found = self._pipeline.encode_prompt(
            prompt=prompts, device=self._pipeline.device, num_images_per_prompt=1, **options
        )
        return {n: t for n, t in zip(self._family.embeddings, found, strict=False) if t is not None}

    def _takes(self, name: str) -> bool:
        return name in self._parameters
