"""Asks a causal language model of transformers on this machine."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from builders.errors import UserError, first_line
from builders.networks.revision import directory_digest, hub_commit
from builders.planning.plan import sample_seed
from builders.prompt_writing.answer_log import Answer
from builders.prompt_writing.instruction import Request

TOKENS_PER_CAPTION = 48


class CausalModel:
    """A language model with its tokenizer; it answers requests as `Author` says."""

    def __init__(self, model: str, revision: str, batch_size: int) -> None:
        """Loads a model from the Hub or a directory.

        Raises:
            UserError: it cannot be loaded.
            UnreachableError: the Hub does not answer.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        is_local = Path(model).is_dir()
        self.name = Path(model).resolve().name if is_local else model
        self.revision = directory_digest(model) if is_local else hub_commit(model, revision, "--llm")
        self._batch_size, self._device = batch_size, "cuda" if torch.cuda.is_available() else "cpu"
        where = {} if is_local else {"revision": self.revision}
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(model, padding_side="left", **where)
            self._model: Any = (
                AutoModelForCausalLM.from_pretrained(model, dtype="auto", **where).to(self._device).eval()
            )
        except Exception as error:  # transformers raises all kinds of errors for a folder of something else
            raise UserError(
                f"'{model}' cannot be loaded as a causal language model ({first_line(error)}); give --llm one of transformers"
            ) from None
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token

    def answers(self, requests: Sequence[Request], seed: int) -> Iterator[Answer]:
        """Yields the answers in order, batch by batch; the random numbers of a batch follow from the seed and its first
        request."""
        import torch

        for first in range(0, len(requests), self._batch_size):
            batch = requests[first : first + self._batch_size]
            texts = [self._prompt(request.text) for request in batch]
            limit = getattr(self._model.config, "max_position_embeddings", 1 << 20)
            num_new = min(TOKENS_PER_CAPTION * max(request.count for request in batch), limit // 2)
            inputs = self._tokenizer(
                texts, return_tensors="pt", padding=True, truncation=True, max_length=limit - num_new
            ).to(self._device)
            torch.manual_seed(sample_seed(seed, batch[0].class_id, batch[0].number, 0))
            with torch.inference_mode():
                made = self._model.generate(
                    **inputs, do_sample=True, max_new_tokens=num_new, pad_token_id=self._tokenizer.pad_token_id
                )
            found = self._tokenizer.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            for request, text in zip(batch, found, strict=True):
                yield Answer(request.class_id, request.number, text)

    def _prompt(self, text: str) -> str:
        if self._tokenizer.chat_template:
            messages = [{"role": "user", "content": text}]
            return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        return f"{text}\n1."
