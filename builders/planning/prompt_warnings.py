"""Warns of odd prompts in a plan before any image is generated.

It finds classes with the same prompt, prompts that a text encoder cuts off, and settings that the model ignores.
"""

import contextlib
import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from builders.classes.class_list import ClassEntry
from builders.classes.scenes import scene_phrase
from builders.diffusion.family import CLIP, Family
from builders.diffusion.family_defaults import family_of
from builders.diffusion.pin import is_embedded, model_directory
from builders.engines.base import engine
from builders.errors import ReadableError
from builders.planning.plan import Plan
from builders.recipes.prompts import render_prompt, template_fields
from builders.recipes.recipe import Recipe

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_SHOWN = 3


def prompt_warnings(plan: Plan) -> list[str]:
    """Returns one sentence per problem. Tokens are counted only if the model's tokenizer is on this machine."""
    if not engine(plan.recipe.engine).IS_SYNTHETIC:
        return []
    if not engine(plan.recipe.engine).HAS_TOKENIZERS:
        return same_prompts(plan.recipe)
    found = None
    with contextlib.suppress(ReadableError):  # loading the model reports it
        found = family_of(plan.recipe)
    unused = (
        [
            f"{name} {getattr(plan.recipe, name)!r} changes nothing in images of {found.family.name} with these settings"
            for name in found.family.ignored(plan.recipe)
        ]
        if found
        else []
    )
    return [*same_prompts(plan.recipe), *unused, *_cut_prompts(plan.recipe, found.family if found else None)]


def same_prompts(recipe: Recipe) -> list[str]:
    """Returns one sentence for each set of classes whose prompts are the same."""
    classes: dict[str, list[str]] = defaultdict(list)
    for entry in recipe.classes:
        classes[render_prompt(recipe.prompt, entry, "")].append(entry.wnid)
    return [
        f"classes {', '.join(wnids)} have the same prompt '{prompt}', so their images show the same things"
        for prompt, wnids in classes.items()
        if len(wnids) > 1
    ]


def _cut_prompts(recipe: Recipe, family: Family | None) -> list[str]:
    folders = _tokenizer_folders(recipe)
    if not folders:
        return [f"the tokens of prompts were not counted: the tokenizer of '{recipe.model}' is not on this machine"]
    warnings = []
    for folder in folders:
        try:
            tokenizer, (limit, num_others) = read_tokenizer(folder), _token_limit(folder, family)
        except Exception as error:  # the tokenizers library raises nothing narrower
            warnings.append(f"the tokens of prompts were not counted: {folder.name} cannot be read ({error})")
            continue
        if tokenizer is None:
            warnings.append(
                f"the tokens of prompts were not counted: {folder.name} has no tokenizer.json or merges.txt"
            )
            continue
        num_cut, num_prompts, wnids = _count_cut(recipe, tokenizer, limit - num_others)
        if num_cut:
            shown = ", ".join(wnids[:MAX_SHOWN]) + (", …" if len(wnids) > MAX_SHOWN else "")
            warnings.append(
                f"{num_cut:,} of {num_prompts:,} different prompts ({len(wnids)} classes: {shown}) are longer than the "
                f"{limit} tokens that its {folder.name.replace('tokenizer', 'text encoder')} reads; their ends are cut off"
            )
    return warnings


def fetch_tokenizers(recipe: Recipe) -> None:
    """Downloads a Hub model's tokenizers (some megabytes), so that tokens can be counted; ignores failures."""
    if not engine(recipe.engine).HAS_TOKENIZERS or is_embedded(recipe) or recipe.model_dir:
        return
    import huggingface_hub

    with contextlib.suppress(Exception):  # loading the model itself reports what is missing
        huggingface_hub.snapshot_download(recipe.model, revision=recipe.revision, allow_patterns=["tokenizer*/*"])


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


def _count_cut(recipe: Recipe, tokenizer: "Tokenizer", limit: int) -> tuple[int, int, list[str]]:
    """Returns the numbers of different prompts of more than `limit` tokens and of all, and the classes of the former."""
    phrases = [scene_phrase(scene) for scene in recipe.scenes] if "b" in template_fields(recipe.prompt) else [""]
    lengths = _num_tokens(tokenizer, phrases)
    longest = phrases[lengths.index(max(lengths))]
    num_cut, wnids, seen = 0, [], set()
    most = _num_tokens(tokenizer, [render_prompt(recipe.prompt, entry, longest) for entry in recipe.classes])
    for entry, num_tokens in zip(recipe.classes, most, strict=True):
        prompt = render_prompt(recipe.prompt, entry, longest)
        # If the prompt with the longest background fits, those with other backgrounds fit as well.
        if num_tokens > limit and prompt not in seen:
            num_cut += sum(length > limit for length in _num_tokens(tokenizer, _prompts(recipe, entry, phrases)))
            wnids.append(entry.wnid)
        seen.add(prompt)
    return num_cut, len(seen) * len(phrases), wnids


def _prompts(recipe: Recipe, entry: ClassEntry, phrases: list[str]) -> list[str]:
    return [render_prompt(recipe.prompt, entry, phrase) for phrase in phrases]


def _num_tokens(tokenizer: "Tokenizer", texts: list[str]) -> list[int]:
    return [len(encoding.ids) for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
