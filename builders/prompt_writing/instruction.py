"""The instruction for a language model, and what becomes of its answers: captions that name the class in the right sense."""

import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from builders.classes.class_list import ClassEntry
from builders.prompts.canonical_rows import MAX_LETTERS

INSTRUCTION = (
    "You write captions of photographs for a text-to-image model. Write {count} different captions of photographs that "
    "show {subject}. Each caption is one line of 8 to 25 words, contains the words '{lemma}' in exactly this sense, and "
    "describes what can be seen: setting, viewpoint, light, action, other things. No two captions share their setting. "
    "Number the lines, and write nothing else."
)
TAKEN = "\nThese captions exist already; write others:\n{captions}"
NUM_TAKEN_SHOWN = 10
MARKER = re.compile(r"^\s*(?:\(?\d{1,4}[.):]|[-*•–])\s*")
QUOTES = "\"'“”‘’«»` "
MIN_WORDS = 2


@dataclass(frozen=True)
class Request:
    """One request for captions of a class."""

    class_id: str
    number: int
    """How many requests for this class came before."""
    count: int
    """Number of captions that it asks for."""
    text: str


def request_text(entry: ClassEntry, count: int, taken: Sequence[str]) -> str:
    """Returns the instruction for one class. Its name, its parent and its definition settle which sense is meant."""
    subject = entry.name + (f", a kind of {entry.hypernym}" if entry.hypernym else "")
    subject += f" ({entry.definition})" if entry.definition else ""
    text = INSTRUCTION.format(count=count, subject=subject, lemma=entry.name.split(", ")[0])
    shown = taken[-NUM_TAKEN_SHOWN:]
    return text + (TAKEN.format(captions="\n".join(shown)) if shown else "")


def parse_answer(answer: str) -> list[str]:
    """Returns the captions of an answer: its numbered, bulleted or plain lines, or the strings of a JSON list.

    What comes before "</think>" is not part of the answer.
    """
    answer = answer.rpartition("</think>")[2]
    bracketed = answer[answer.find("[") : answer.rfind("]") + 1]
    lines: list[str] = answer.splitlines()
    if bracketed:
        try:
            found = json.loads(bracketed)
            lines = [text for text in found if isinstance(text, str)]
        except (ValueError, RecursionError):
            pass
    texts = (" ".join(MARKER.sub("", line).strip(QUOTES).replace("**", "").split()) for line in lines)
    return [text for text in texts if text]


def accepted(
    texts: Sequence[str], entry: ClassEntry, taken: Collection[str], is_cut: Callable[[Sequence[str]], Sequence[bool]]
) -> list[str]:
    """Returns those captions that can be used.

    A caption has two words or more, contains one of the class's names, is not cut off by a text encoder, and differs
    from the others in more than capitals.

    Args:
        taken: Captions of the class so far.
        is_cut: Returns of each text whether a text encoder cuts it off.
    """
    seen = {text.casefold() for text in taken}
    names = _names(entry)
    found = []
    for text in texts:
        is_fine = len(text.split()) >= MIN_WORDS and len(text) <= MAX_LETTERS and text.isprintable()
        if is_fine and names.search(text) and text.casefold() not in seen:
            seen.add(text.casefold())
            found.append(text)
    return [text for text, cut in zip(found, is_cut(found), strict=True) if not cut] if found else []


def _names(entry: ClassEntry) -> re.Pattern[str]:
    """Matches any of the class's names as whole words, also in the plural."""
    names = sorted({entry.name, *entry.name.split(", ")}, key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(re.escape(name) for name in names)})(?:e?s)?(?!\w)", re.IGNORECASE)
