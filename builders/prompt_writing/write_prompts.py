"""Writes a prompt file for a recipe: captions by a language model, filled up with compositions, or compositions alone.

Invariant: the file follows from the recipe and the answers that were kept (`answer_log.py`), so a run that was killed
continues, and every row names the answer that it comes from.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from builders.classes.class_list import ClassEntry
from builders.diffusion.family_defaults import family_of
from builders.diffusion.token_counts import text_encoders
from builders.errors import UserError
from builders.prompt_writing.answer_log import Answer, AnswerLog
from builders.prompt_writing.compose import SOURCE, compositions
from builders.prompt_writing.instruction import INSTRUCTION, Request, accepted, parse_answer, request_text
from builders.recipes.recipe import Recipe
from builders.storage.local import temporary_file

PER_REQUEST = 25
"""Number of captions that a request asks for at most."""
FORMATS = (".csv", ".jsonl", ".parquet")
COLUMNS = ("class", "text", "source", "answer")
COMPOSED = -1
"""Number of the answer of a composed caption; the others are found in the answers by class and number."""


class Author(Protocol):
    """A language model."""

    name: str
    revision: str
    """Commit or digest of its weights; "" if nobody can tell."""

    def answers(self, requests: Sequence[Request], seed: int) -> Iterator[Answer]:
        """Yields the answers to requests, in any order."""


@dataclass(frozen=True)
class Written:
    num_rows: int
    num_composed: int
    num_short: int
    """Number of classes with fewer captions than were to be written, because there are no more compositions."""
    note: str
    """What was not checked; "" if everything was."""


@dataclass(frozen=True)
class Caption:
    text: str
    answer: int
    """Number of its answer among those about its class."""


def check_output(out: Path) -> None:
    """Checks the name of the file to write.

    Raises:
        UserError: its ending is none of `FORMATS`, or there is no such folder.
    """
    if out.suffix not in FORMATS:
        raise UserError(f"'{out}' is none of {', '.join(FORMATS)}; give -o such a name")
    if not out.parent.is_dir():
        raise UserError(f"there is no folder '{out.parent}'; make it, or choose another file")


def write_prompts(
    recipe: Recipe,
    out: Path,
    per_class: int,
    author: Author | None = None,
    *,
    tries: int = 3,
    on_captions: Callable[[int], object] = lambda num_captions: None,
) -> Written:
    """Writes the file `out`, and beside it OUT.json with how it came about, and the answers as OUT.answers.jsonl.

    Args:
        recipe: Recipe whose classes are described. Lengths are checked with its model's tokenizers.
        per_class: Number of captions of each class.
        author: Language model; None composes all captions.
        tries: How many requests for a class may fall short before compositions fill in.
        on_captions: Called with the number of captions that an answer brought.

    Raises:
        UserError: a file cannot be written, the answers kept there are of another model, or the model refuses.
        UnreachableError: the model's endpoint does not answer; the answers so far are kept.
    """
    check_output(out)
    is_cut, note = _length_check(recipe)
    captions: dict[str, list[Caption]] = {entry.wnid: [] for entry in recipe.classes}
    facts: dict[str, Any] = {"recipe": recipe.name, "captions_per_class": per_class}
    if author:
        settings = {"model": author.name, "revision": author.revision, "instruction": INSTRUCTION, "seed": recipe.seed}
        log = AnswerLog(Path(f"{out}.answers.jsonl"), settings)
        try:
            captions = _ask(recipe, per_class, author, log, tries, is_cut, on_captions)
        finally:
            log.close()
        problems = Counter(answer.problem for answer in log.answers if answer.problem)
        facts |= {**settings, "num_answers": len(log.answers), "problems": dict(problems), "lengths_checked": not note}
    rows = [row for entry in recipe.classes for row in _rows(recipe, entry, captions[entry.wnid], per_class, author)]
    counts = Counter(row["source"] for row in rows)
    facts |= {"date": datetime.now(UTC).date().isoformat(), "num_rows": len(rows), "rows_by_source": dict(counts)}
    _write(out, rows)
    _write_whole(Path(f"{out}.json"), json.dumps(facts, ensure_ascii=False, indent=1).encode() + b"\n")
    per_id = Counter(row["class"] for row in rows)
    num_short = sum(per_id[entry.wnid] < per_class for entry in recipe.classes)
    return Written(len(rows), counts[SOURCE], num_short, note if author else "")


def _length_check(recipe: Recipe) -> tuple[Callable[[Sequence[str]], Sequence[bool]], str]:
    """Returns a function that says which texts are cut off, and why nothing is checked where that cannot be known."""
    found = family_of(recipe)
    encoders, problems = text_encoders(recipe, found.family if found else None)

    def is_cut(texts: Sequence[str]) -> Sequence[bool]:
        cut = np.zeros(len(texts), dtype=np.bool_)
        for encoder in encoders:
            cut |= encoder.is_cut(texts)
        return list(cut.tolist())

    return is_cut, "; ".join(problems)


def _ask(
    recipe: Recipe,
    per_class: int,
    author: Author,
    log: AnswerLog,
    tries: int,
    is_cut: Callable[[Sequence[str]], Sequence[bool]],
    on_captions: Callable[[int], object],
) -> dict[str, list[Caption]]:
    """Asks for captions of all classes, in rounds, until all are there or compositions have to fill in."""
    entries = {entry.wnid: entry for entry in recipe.classes}
    captions: dict[str, list[Caption]] = {wnid: [] for wnid in entries}
    num_requests: dict[str, int] = dict.fromkeys(entries, 0)

    def take(answer: Answer) -> None:
        entry, taken = entries[answer.class_id], captions[answer.class_id]
        texts = accepted(parse_answer(answer.text), entry, [caption.text for caption in taken], is_cut)
        new = [Caption(text, answer.number) for text in texts[: per_class - len(taken)]]
        taken += new
        num_requests[answer.class_id] = answer.number + 1
        on_captions(len(new))

    for answer in sorted(log.answers, key=lambda answer: answer.number):
        take(answer)
    most = -(-per_class // PER_REQUEST) + tries - 1
    while True:
        requests = []
        for wnid, entry in entries.items():
            missing = per_class - len(captions[wnid])
            if missing > 0 and num_requests[wnid] < most:
                count = min(missing, PER_REQUEST)
                text = request_text(entry, count, [caption.text for caption in captions[wnid]])
                requests.append(Request(wnid, num_requests[wnid], count, text))
        num_before = len(log.answers)
        for answer in author.answers(requests, recipe.seed):
            log.add(answer)
            take(answer)
        if len(log.answers) == num_before:
            return captions


def _rows(
    recipe: Recipe, entry: ClassEntry, captions: Sequence[Caption], per_class: int, author: Author | None
) -> Iterator[dict[str, Any]]:
    """Yields the rows of a class: its captions, then compositions."""
    for caption in captions:
        assert author
        yield {"class": entry.wnid, "text": caption.text, "source": author.name, "answer": caption.answer}
    seen, missing = {caption.text.casefold() for caption in captions}, per_class - len(captions)
    for text in compositions(recipe, entry) if missing else ():
        if text.casefold() not in seen:
            yield {"class": entry.wnid, "text": text, "source": SOURCE, "answer": COMPOSED}
            missing -= 1
        if not missing:
            return


def _write(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    if out.suffix == ".parquet":
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(list(rows)), buffer)
        content = buffer.getvalue()
    elif out.suffix == ".jsonl":
        content = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()
    else:
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        content = text.getvalue().encode()
    _write_whole(out, content)


def _write_whole(path: Path, content: bytes) -> None:
    temporary = temporary_file(path)
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"'{path}' cannot be written ({error.strerror}); choose another file") from None
