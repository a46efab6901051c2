"""Keeps diffusers and transformers from printing what users cannot act on."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import diffusers
import transformers


@contextmanager
def quiet() -> Iterator[None]:
    """Turns the libraries' progress bars off while a model is loaded. Their warnings are shown."""
    libraries = [library for library in (diffusers, transformers) if library.utils.logging.is_progress_bar_enabled()]
    for library in libraries:
        library.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        for library in libraries:
            library.utils.logging.enable_progress_bar()


KNOWN_WARNINGS = (
    "was truncated because",
    "Token indices sequence length",
    "was removed because",
    "Potential NSFW",
    "No LoRA keys associated to",
    "Attention backends are an experimental feature",
)
"""What the libraries say in every batch: about long prompts, as `plan` says once, and of flagged images that they are
blackened, which they never are here; and of text encoders that an adapter leaves as they are."""


@contextmanager
def without_known_warnings() -> Iterator[None]:
    """Leaves `KNOWN_WARNINGS` out of the libraries' log, and shows all others."""

    def is_other(record: logging.LogRecord) -> bool:
        return not any(text in record.getMessage() for text in KNOWN_WARNINGS)

    handlers = [handler for name in ("diffusers", "transformers") for handler in logging.getLogger(name).handlers]
    for handler in handlers:
        handler.addFilter(is_other)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_other)
