"""Brings the rows of a prompt file into the one form that a recipe hashes, and finds what is wrong with them.

Invariant: files of any format with the same prompts, in the same order within each class, give the same rows.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from builders.classes.class_list import ClassEntry
from builders.errors import UserError
from builders.prompts.prompt_file import read_prompt_file
from builders.prompts.prompt_table import ALL_CLASSES, SCHEMA, keep_rows
from builders.recipes.prompts import template_problem
from builders.recipes.recipe import Recipe

MAX_LETTERS = 10_000
"""Upper limit for the letters of a prompt."""
MAX_SHOWN = 3
CLASSES_AT_A_TIME = 32


@dataclass(frozen=True)
class Fault:
    text: str
    row: int = 0
    """Row of the file, from 1; 0 for a fault of the whole file."""
    is_fatal: bool = True
    """Whether no clone can be made with it."""

    def __str__(self) -> str:
        return f"row {self.row:,}: {self.text}" if self.row else self.text


@dataclass(frozen=True)
class CanonicalRows:
    columns: dict[str, pa.Array]
    """Columns of `SCHEMA` as the file has them; the texts in chunks."""
    order: NDArray[np.int64]
    """Indices of the rows sorted by class, in the file's order within each. Those with a fatal fault are left out."""
    bounds: list[int]
    """Where each class begins in `order`, and the length of that."""
    has_classes: bool
    """Whether the rows are captions of single classes, not templates for all."""
    faults: list[Fault]

    def by_class(self) -> Iterator[pa.Table]:
        """Yields the rows of each class. Memory holds some classes beside the columns."""
        starts = range(0, len(self.bounds) - 1, CLASSES_AT_A_TIME)
        batches = [self.bounds[start : start + CLASSES_AT_A_TIME + 1] for start in starts]
        with ThreadPoolExecutor(1) as pool:
            # The next classes are taken while the caller hashes and writes these.
            ahead = [pool.submit(self._taken, self.order[some[0] : some[-1]]) for some in batches[:1]]
            for number, some in enumerate(batches):
                ahead += [pool.submit(self._taken, self.order[n[0] : n[-1]]) for n in batches[number + 1 : number + 2]]
                rows = ahead.pop(0).result()
                yield from (rows.slice(first - some[0], last - first) for first, last in itertools.pairwise(some))

    @cached_property
    def rows(self) -> pa.Table:
        """All rows, sorted by class."""
        return self._taken(self.order)

    def _taken(self, indices: NDArray[np.int64]) -> pa.Table:
        chunks = self.columns["text"].chunks
        starts = np.cumsum([0, *(len(chunk) for chunk in chunks)])
        # Rows are taken from a chunk in its order, and sorted then: to take single rows from all chunks is slow.
        ascending = np.sort(indices)
        cuts = np.searchsorted(ascending, starts)
        texts = pa.concat_arrays(
            [
                pa.array([], pa.string()),
                *(
                    chunk.take(pa.array(ascending[low:high] - start))
                    for chunk, start, low, high in zip(chunks, starts, cuts, cuts[1:], strict=False)
                ),
            ]
        )
        others = {name: self.columns[name].take(pa.array(indices)) for name in SCHEMA.names if name != "text"}
        columns = {**others, "text": texts.take(pa.array(np.searchsorted(ascending, indices)))}
        return pa.table(columns).select(SCHEMA.names).cast(SCHEMA)

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Row of the file that each of `rows` comes from, from 1: (rows,)."""
        return self.order + 1


def with_prompts(recipe: Recipe, where: str) -> Recipe:
    """Returns the recipe with the prompts of a file, which are put into this machine's cache.

    Raises:
        UserError: the file cannot be read, or has a fatal fault.
    """
    found = canonical_rows(recipe, where)
    if fatal := [fault for fault in found.faults if fault.is_fatal]:
        more = f", and {len(fatal) - 1:,} more such faults" if len(fatal) > 1 else ""
        raise UserError(
            f"prompt file '{where}', {fatal[0]}{more}; see fakeit-build prompts lint '{where}' {recipe.name}"
        )
    name = keep_rows(found.by_class())
    origin = where.partition("?")[0] if "://" in where else where.replace("\\", "/").rpartition("/")[2]
    return replace(recipe, prompt="", prompts=name, prompts_source=origin)


def canonical_rows(recipe: Recipe, where: str) -> CanonicalRows:
    """Reads a prompt file for the classes of a recipe.

    Raises:
        UserError: the file cannot be read at all.
    """
    raw = read_prompt_file(where)
    has_classes = "class" in raw.column_names
    columns = {name: _column(raw, name) for name in ("weight", "skip", "source")}
    names = raw["class"].combine_chunks() if has_classes else pa.repeat(ALL_CLASSES, raw.num_rows)
    labels, unknown = _labels(names, recipe.classes) if has_classes else (np.zeros(raw.num_rows, np.int64), [])
    ids = pa.array(recipe.label_names if has_classes else [ALL_CLASSES], pa.string())
    columns["class"] = pa.DictionaryArray.from_arrays(pa.array(np.maximum(labels, 0), pa.int32()), ids)
    chunks = raw["text"].chunks
    del raw
    # Chunk by chunk, so that memory holds the texts once and a half at most.
    texts = [_as_one_line(chunks.pop(0)) for _ in range(len(chunks))]
    columns["text"] = pa.chunked_array(texts, pa.string())
    del texts
    faults = list(_row_faults(columns, labels))
    is_good = labels >= 0
    is_good[[fault.row - 1 for fault in faults]] = False
    kept = np.flatnonzero(is_good)
    order = kept[np.argsort(labels[kept], kind="stable")]
    bounds = [0, *(np.flatnonzero(np.diff(labels[order])) + 1).tolist(), len(order)]
    found = CanonicalRows(columns, order, sorted(set(bounds)), has_classes, faults)
    faults += _set_faults(recipe, found, unknown)
    return found


def _column(raw: pa.Table, name: str) -> pa.Array:
    default = {"weight": 1.0, "skip": False, "source": ""}[name]
    if name not in raw.column_names:
        return pa.repeat(pa.scalar(default), raw.num_rows)
    return pc.fill_null(raw[name].combine_chunks(), default)


def _as_one_line(texts: pa.Array) -> pa.Array:
    """Returns the texts without white space at their ends, and with single spaces for other white space and breaks."""
    texts = pc.utf8_trim_whitespace(pc.fill_null(texts, ""))
    if pc.any(pc.match_substring_regex(texts, r"\s\s|[\t\n\v\f\r]")).as_py():
        texts = pc.replace_substring_regex(texts, r"[\s\v]+", " ")
    return texts


def _labels(names: pa.Array, classes: Sequence[ClassEntry]) -> tuple[NDArray[np.int64], list[str]]:
    """Returns the label of each name, -1 for a class that the recipe lacks, and the names of those classes.

    A class may be given by its id, by its whole name, or by its first lemma where no other class has that.
    """
    label_of: dict[str, int] = {}
    for name in ("lemma", "name", "wnid"):
        own = [entry.name.split(", ")[0] if name == "lemma" else getattr(entry, name) for entry in classes]
        counts = Counter(own)
        label_of |= {text: label for label, text in enumerate(own) if counts[text] == 1}
    found = pc.dictionary_encode(pc.utf8_trim_whitespace(pc.fill_null(names, "")))
    given = found.dictionary.to_pylist()
    labels = np.array([label_of.get(name, -1) for name in given], dtype=np.int64)
    return labels[found.indices.to_numpy()], [name for name in given if name not in label_of]


def _row_faults(columns: dict[str, pa.Array], labels: NDArray[np.int64]) -> Iterator[Fault]:
    weights = columns["weight"].to_numpy()
    lengths = pc.utf8_length(columns["text"]).to_numpy()
    is_ours = labels >= 0
    for row in np.flatnonzero(is_ours & (lengths == 0)):
        yield Fault("it has no text; write one, or remove the row", int(row) + 1)
    for row in np.flatnonzero(is_ours & (lengths > MAX_LETTERS)):
        yield Fault(f"its text has {lengths[row]:,} letters; a prompt has at most {MAX_LETTERS:,}", int(row) + 1)
    for row in np.flatnonzero(is_ours & ~((weights > 0) & (weights < np.inf))):
        yield Fault(f"its weight is {weights[row]:g}; give a number above 0, or skip the row", int(row) + 1)


def _set_faults(recipe: Recipe, found: CanonicalRows, unknown: list[str]) -> Iterator[Fault]:
    if not found.has_classes:
        for number, text in zip(found.numbers, found.rows["text"].to_pylist(), strict=True):
            if problem := template_problem(text, recipe.name, recipe.classes, bool(recipe.scenes)):
                yield Fault(problem, int(number))
    is_used = found.order[~found.columns["skip"].take(pa.array(found.order)).to_numpy(zero_copy_only=False)]
    used = set(pc.unique(found.columns["class"].take(pa.array(is_used))).to_pylist())
    missing = [entry.wnid for entry in recipe.classes if entry.wnid not in used] if found.has_classes else []
    if missing:
        known = f"; it has rows of '{unknown[0][:60]}', which is no class of the recipe" if unknown else ""
        yield Fault(
            f"{len(missing):,} of {len(recipe.classes):,} classes have no prompt: {shown(missing)}; add rows for them{known}"
        )
    elif not used:
        yield Fault("every row is skipped; keep one at least")
    if unknown:
        yield Fault(
            f"rows of {len(unknown):,} classes that the recipe does not have are left out: {shown(unknown)}",
            is_fatal=False,
        )


def shown(names: Sequence[str]) -> str:
    """Returns some of the names, as a message lists them."""
    return ", ".join(name[:60] for name in names[:MAX_SHOWN]) + (", …" if len(names) > MAX_SHOWN else "")
