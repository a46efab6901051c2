"""The prompts of a recipe as rows of one table, sorted by class, in a Parquet file with a row group for each class.

Invariant: a recipe names its rows by their hash. The rows lie in the cache of this machine under that name, and beside
the clone in `prompts.parquet`, so every process finds them by the recipe alone.
"""

import hashlib
import io
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from builders.errors import UserError
from builders.format.names import PROMPTS, staged_prompts
from builders.prompts.turns import Turns, shuffled_rows
from builders.recipes.recipe import Recipe
from builders.storage.base import Storage
from builders.storage.cache_folder import cache_folder
from builders.storage.local import temporary_file

SCHEMA = pa.schema(
    [("class", pa.string()), ("text", pa.string()), ("weight", pa.float64()), ("skip", pa.bool_()), ("source", pa.string())]
)  # fmt: skip
"""Columns of a prompt file: class id ("" for templates of all classes), text, weight above 0, whether the row is left out,
and where the text comes from."""
ALL_CLASSES = ""
"""Class of the rows that are templates for all classes."""


@dataclass(frozen=True)
class Prompt:
    row: int
    """Number of the row in the table, from 0."""
    text: str
    is_template: bool
    """Whether the text is a template, not a caption that is used as it is."""


@dataclass(frozen=True)
class Summary:
    """What a card and a plan say of the prompts."""

    about: str
    """Such as "50 to 60 captions a class, 55,000 in all"."""
    sources: list[tuple[str, int]]
    """What the file says of where its texts come from, and the number of rows, most first."""
    has_weights: bool


@dataclass(frozen=True)
class _ClassRows:
    """The rows of one class."""

    first: int
    """Number of the first of them in the table."""
    texts: pa.Array
    skip: list[bool]
    is_template: bool
    turns: Turns
    ranks: dict[int, int]
    """Position of each row in the shuffled order; empty if no row is skipped."""
    order: list[int]

    def prompt(self, turn: int) -> Prompt:
        row = self.turns[turn]
        while self.skip[row]:
            row = self.order[(self.ranks[row] + 1) % len(self.order)]
        return Prompt(self.first + row, self.texts[row].as_py(), self.is_template)


class PromptTable:
    """The rows of a prompt file. Memory holds the texts of those classes that have been looked up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = pq.ParquetFile(path, memory_map=True)
        lengths = [self._file.metadata.row_group(number).num_rows for number in range(self._file.num_row_groups)]
        self._firsts = [0, *itertools.accumulate(lengths)]
        self._by_class: dict[tuple[int, str], _ClassRows] = {}

    @cached_property
    def counts(self) -> dict[str, int]:
        """Number of rows by class id, in the order of the table."""
        names = self._file.read(columns=["class"]).column(0).take(pa.array(self._firsts[:-1])).to_pylist()
        return {name: last - first for name, first, last in zip(names, self._firsts, self._firsts[1:], strict=False)}

    @property
    def has_templates(self) -> bool:
        """Whether the rows are templates for all classes, not captions of single ones."""
        return ALL_CLASSES in self.counts

    @property
    def num_rows(self) -> int:
        return self._firsts[-1]

    def summary(self) -> Summary:
        """Returns what a card says of the prompts."""
        rows = self._file.read(columns=["weight", "skip", "source"])
        num_skipped, counts = int(pc.sum(rows["skip"]).as_py()), self.counts.values()
        number = f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"
        kind = "templates" if self.has_templates else f"captions a class, {self.num_rows:,} in all"
        sources = [(found["values"].as_py(), found["counts"].as_py()) for found in pc.value_counts(rows["source"])]
        return Summary(
            about=f"{number} {kind}{f', {num_skipped:,} of them skipped' if num_skipped else ''}",
            sources=sorted(((name, count) for name, count in sources if name), key=lambda one: (-one[1], one[0])),
            has_weights=len(pc.unique(rows["weight"])) > 1,
        )

    def rows(self, class_id: str) -> pa.Table:
        """Returns the rows of a class, or of the templates for it."""
        return self._file.read_row_group(self._position(class_id))

    def longest(self, count: int) -> list[str]:
        """Returns the longest texts by their bytes; memory holds some classes at a time."""
        found = pa.array([], pa.string())
        for batch in self._file.iter_batches(batch_size=1 << 16, columns=["text"]):
            lengths = pc.binary_length(batch.column(0))
            longest = pc.select_k_unstable(lengths, min(count, len(lengths)), sort_keys=[("", "descending")])
            found = pa.concat_arrays([found, batch.column(0).take(longest)])
            order = pc.sort_indices(pc.binary_length(found), sort_keys=[("", "descending")])
            found = found.take(order[:count])
        return list(found.to_pylist())

    def read(self) -> pa.Table:
        """Returns all rows."""
        return self._file.read()

    def prompt(self, seed: int, class_id: str, turn: int) -> Prompt:
        """Returns the prompt of a class's turn, under a recipe's seed."""
        if (seed, class_id) not in self._by_class:
            self._by_class[seed, class_id] = self._class_rows(seed, class_id)
        return self._by_class[seed, class_id].prompt(turn)

    def _position(self, class_id: str) -> int:
        """Returns the position of a class among the classes of the table."""
        return 0 if self.has_templates else self._positions[class_id]

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.counts)}

    def _class_rows(self, seed: int, class_id: str) -> _ClassRows:
        rows = self.rows(class_id)
        order = shuffled_rows(seed, class_id, rows.num_rows)
        skip = rows["skip"].to_pylist()
        return _ClassRows(
            first=self._firsts[self._position(class_id)],
            texts=rows["text"].combine_chunks(),
            skip=skip,
            is_template=self.has_templates,
            turns=Turns(order, rows["weight"].to_pylist()),
            ranks={int(row): rank for rank, row in enumerate(order)} if any(skip) else {},
            order=order.tolist() if any(skip) else [],
        )


class RowsHash:
    """Hashes the rows of a prompt file, a class at a time; `source` does not count, for it changes no image.

    Hashed are, for each class, its id and its number of rows, then the texts, each of these with a line break at its end,
    then the weights (float64, little-endian) and a byte for each `skip`.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, rows: pa.Table) -> None:
        """Adds the rows of one class."""
        self._digest.update(f"{rows['class'][0].as_py()}\n{rows.num_rows}\n".encode())
        lines = pc.binary_join_element_wise(rows["text"].combine_chunks(), "", "\n")
        # The bytes of all lines in a row, without an object for each.
        self._digest.update(pc.binary_join(pa.ListArray.from_arrays([0, len(lines)], lines), "")[0].as_buffer())
        self._digest.update(rows["weight"].to_numpy().astype("<f8").tobytes())
        self._digest.update(rows["skip"].to_numpy().astype(np.uint8).tobytes())

    def __str__(self) -> str:
        return f"sha256:{self._digest.hexdigest()}"


def by_class(rows: pa.Table) -> Iterator[pa.Table]:
    """Yields the rows of each class of a table that is sorted by class."""
    names = rows["class"].combine_chunks()
    changes = pc.not_equal(names.slice(1), names.slice(0, max(len(names) - 1, 0))).to_numpy(zero_copy_only=False)
    bounds = [0, *(np.flatnonzero(changes) + 1).tolist(), len(names)]
    yield from (rows.slice(first, last - first) for first, last in itertools.pairwise(bounds) if last > first)


def keep_rows(classes: Iterable[pa.Table]) -> str:
    """Puts the rows of a prompt file, class by class, into this machine's cache; returns their hash."""
    temporary = temporary_file(cache_folder() / "prompts" / "new")
    found = RowsHash()
    try:
        with pq.ParquetWriter(temporary, SCHEMA) as writer:
            for rows in classes:
                found.add(rows)
                writer.write_table(rows, row_group_size=rows.num_rows)
        temporary.replace(_cached(str(found)))
    except OSError as error:
        raise UserError(
            f"cannot write to '{temporary.parent}': {error.strerror}; set FAKEIT_CACHE to a folder"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
    return str(found)


def prompt_table(name: str) -> PromptTable:
    """Returns the prompts with a hash from this machine's cache.

    Raises:
        UserError: they are not there.
    """
    path = _cached(name)
    if not path.is_file():
        raise UserError(f"the prompts {name} are not on this machine; give --prompts the file that they come from")
    return _opened(path)


def prompt_of(recipe: Recipe, class_id: str, index: int) -> Prompt:
    """Returns the prompt of a class's image, for a recipe whose prompts come from a file.

    Raises:
        UserError: the prompts are not on this machine.
    """
    return prompt_table(recipe.prompts).prompt(recipe.seed, class_id, index // recipe.images_per_prompt)


def fetch_prompts(name: str, storage: Storage) -> bool:
    """Fetches the prompts with a hash from a clone, which may be unfinished, unless this machine has them or the recipe
    has none. Returns False if the clone lacks them too.

    Raises:
        UserError: the clone's file holds other prompts, or is damaged.
    """
    if not name or _cached(name).is_file():
        return True
    for file in (PROMPTS, staged_prompts(name)):
        if storage.exists(file):
            check_prompts(name, storage.read(file), storage.url(file))
            return True
    return False


def check_prompts(name: str, content: bytes, where: str) -> None:
    """Puts the content of a `prompts.parquet` into this machine's cache.

    Raises:
        UserError: it holds other prompts than those with the hash, or is damaged.
    """
    try:
        rows = pq.read_table(io.BytesIO(content)).cast(SCHEMA)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"'{where}' cannot be read ({error}); restore it") from None
    if (found := keep_rows(by_class(rows))) != name:
        raise UserError(f"'{where}' holds the prompts {found}, the recipe has {name}; restore the file")


def prompt_file_of(name: str) -> bytes:
    """Returns the content of a `prompts.parquet` with the prompts with a hash, from this machine's cache."""
    return prompt_table(name).path.read_bytes()


def _cached(name: str) -> Path:
    return cache_folder() / "prompts" / f"{name.removeprefix('sha256:')}.parquet"


@lru_cache(maxsize=4)
def _opened(path: Path) -> PromptTable:
    return PromptTable(path)
