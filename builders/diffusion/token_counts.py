"""Counts the tokens of prompts as a model's text encoders do, by the tokenizers in the model's folder on this machine."""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from builders.diffusion.family import CLIP, Family
from builders.diffusion.pin import is_embedded, model_directory
from builders.engines.base import engine
from builders.recipes.recipe import Recipe

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class TextEncoder:
    name: str
    """Such as "text encoder" or "text encoder_2"."""
    limit: int
    """Number of tokens that it reads."""
    num_own: int
    """How many of them are not the prompt's."""
    tokenizer: "Tokenizer"

    def num_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Returns the number of a text's own tokens, (texts,)."""
        found = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return np.array([len(encoding) for encoding in found], dtype=np.int64)

    def is_cut(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Returns whether the end of each text is cut off, (texts,)."""
        return self.num_tokens(texts) > self.limit - self.num_own


def text_encoders(recipe: Recipe, family: Family | None) -> tuple[list[TextEncoder], list[str]]:
    """Returns the model's text encoders whose tokenizers can be read here, and a sentence for each that cannot."""
    folders = _tokenizer_folders(recipe)
    if not folders:
        return [], [f"the tokens of prompts were not counted: the tokenizer of '{recipe.model}' is not on this machine"]
    encoders, problems = [], []
    for folder in folders:
        try:
            tokenizer, (limit, num_own) = read_tokenizer(folder), _token_limit(folder, family)
        except Exception as error:  # the tokenizers library raises nothing narrower
            problems.append(f"the tokens of prompts were not counted: {folder.name} cannot be read ({error})")
            continue
        if tokenizer is None:
            problems.append(
                f"the tokens of prompts were not counted: {folder.name} has no tokenizer.json or merges.txt"
            )
            continue
        encoders.append(TextEncoder(folder.name.replace("tokenizer", "text encoder"), limit, num_own, tokenizer))
    return encoders, problems


def fetch_tokenizers(recipe: Recipe) -> None:
    """Downloads a Hub model's tokenizers (some megabytes), so that tokens can be counted; ignores failures."""
    if not engine(recipe.engine).HAS_TOKENIZERS or is_embedded(recipe) or recipe.model_dir:
        return
    import huggingface_hub

    with contextlib.suppress(Exception):  # loading the model itself reports what is missing
        huggingface_hub.snapshot_download(recipe.model, revision=recipe.revision, allow_patterns=["tokenizer*/*"])


def read_tokenizer(folder: Path) -> "Tokenizer | None":
    """Reads a tokenizer with the light `tokenizers` library (transformers takes seconds to import).

    Returns:
        None for SentencePiece, which that library does not read.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    if (folder / "tokenizer.json").is_file():
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer
    if not (folder / "merges.txt").is_file():
        return None
    # CLIP's byte-pair encoding from vocab.json and merges.txt, the two files of the original release.
    model = models.BPE.from_file(
        str(folder / "vocab.json"), str(folder / "merges.txt"), end_of_word_suffix="</w>", unk_token="<|endoftext|>"
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, behavior="removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return tokenizer


def _token_limit(folder: Path, family: Family | None) -> tuple[int, int]:
    """Returns how many tokens a text encoder reads, and how many of them are not the prompt's."""
    if family and folder.name in family.tokens:
        return family.tokens[folder.name]
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    return int(config.get("model_max_length") or CLIP[0]), CLIP[1]


def _tokenizer_folders(recipe: Recipe) -> list[Path]:
    """Returns the folders of the model's tokenizers on this machine; empty if the model is not here."""
    root = Path(model_directory(recipe) or recipe.model)
    if not root.is_dir():
        try:
            from huggingface_hub.constants import HF_HUB_CACHE
        except ModuleNotFoundError:
            return []
        cached = Path(HF_HUB_CACHE) / f"models--{recipe.model.replace('/', '--')}"
        name = recipe.revision or "main"
        reference = cached / "refs" / name
        root = cached / "snapshots" / (reference.read_text().strip() if reference.is_file() else name)
    return [path for path in sorted(root.glob("tokenizer*")) if (path / "tokenizer_config.json").is_file()]
