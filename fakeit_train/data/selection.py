"""Selects the samples of a clone that a run trains on: a prefix, without excluded keys, filtered by metadata.

The selection depends only on the clone and these settings. The training order covers the selected samples.
"""

import hashlib
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builders.command_line.text_list import read_list
from builders.errors import SampleNotFoundError, UserError, suggest
from builders.format.open_clone import Clone
from builders.format.schema import JSON_FIELDS

Rows = NDArray[np.int64]
COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "!=": operator.ne, "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt,
    "~": lambda text, words: all(word in text.lower() for word in words.lower().split()),
}  # fmt: skip
"""Comparisons by their sign; ~ is true of a text that contains all words, whatever their capitals."""
CONDITION = re.compile(r"\s*(\w+)\s*(==|!=|<=|>=|<|>|~)\s*(.*?)\s*")


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A comparison of a metadata field with a value, such as `nsfw != 1`."""

    field: str
    comparison: str
    value: Any

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Parses a condition such as `nsfw != 1`.

        Raises:
            UserError: the text is not a comparison, or the field is unknown, or the value has the wrong type.
        """
        found = CONDITION.fullmatch(text)
        if not found:
            raise UserError(
                f"'{text}' is not a condition; write a field, a comparison and a value, such as 'nsfw != 1'"
            )
        field, comparison, value = found.groups()
        if field not in JSON_FIELDS:
            raise UserError(f"condition '{text}' has an unknown field; {suggest(field, list(JSON_FIELDS))}")
        kind = JSON_FIELDS[field]
        if comparison == "~" and kind is not str:
            raise UserError(f"condition '{text}' looks for words in a number; compare {field} by ==, != or <")
        try:
            parsed = kind(value.strip("'\"") if kind is str else value)
        except ValueError:
            raise UserError(
                f"'{value}' in condition '{text}' is not of type {kind.__name__}, the type of {field}"
            ) from None
        return cls(field=field, comparison=comparison, value=parsed)

    def holds(self, values: list[Any]) -> NDArray[np.bool_]:
        """Returns whether each value meets the condition, as a bool array (len(values),)."""
        compare = COMPARISONS[self.comparison]
        return np.fromiter((compare(value, self.value) for value in values), dtype=np.bool_, count=len(values))


@dataclass(frozen=True)
class Piece:
    """The selected samples of one shard."""

    shard: int
    length: int
    """Number of selected samples."""
    rows: Rows | None = None
    """Rows of the selected samples in the shard; None for the first `length` rows."""


NOT_BROKEN = Condition(field="broken", comparison="==", value=0)


def select(
    clone: Clone, *, scale: float, conditions: list[Condition], excluded: frozenset[int], keeps_broken: bool = False
) -> list[Piece]:
    """Selects samples of a clone, and returns them by shard without shards that have none.

    Args:
        clone: Clone to select from.
        scale: Multiple of the 1x clone: selects the prefix that `fakeit-build make --scale` would have generated.
            0 selects the whole clone.
        conditions: Conditions that the samples' metadata must meet.
        excluded: Numbers of samples to leave out.
        keeps_broken: Whether to select images that were broken in every attempt.

    Raises:
        UserError: the clone is smaller than `scale`, or no sample is left.
    """
    num_samples = len(clone) if scale == 0 else _num_within(clone, scale)
    by_shard: dict[int, list[int]] = {}
    for number in excluded:
        shard, row = clone.locate(number)
        by_shard.setdefault(shard, []).append(row)
    pieces = list(_pieces(clone, num_samples, conditions, by_shard, keeps_broken))
    if not pieces:
        raise UserError(
            f"no sample of '{clone.root}' is left; loosen data.scale, data.where or data.exclude, "
            "or set data.keep_broken"
        )
    return pieces


def _pieces(
    clone: Clone, num_samples: int, given: list[Condition], excluded: dict[int, list[int]], keeps_broken: bool
) -> Iterator[Piece]:
    for shard, entry in enumerate(clone.manifest.shards):
        length = min(entry.num_samples, num_samples - clone.shard_starts[shard])
        if length <= 0:
            return
        # The manifest says which few shards hold broken images, so the metadata of others need not be read for this.
        conditions = [*given, NOT_BROKEN] if entry.verdicts.broken and not keeps_broken else given
        if not conditions and shard not in excluded:
            yield Piece(shard, length)
            continue
        is_kept = np.ones(entry.num_samples, dtype=np.bool_)
        is_kept[length:] = False
        is_kept[excluded.get(shard, [])] = False
        if conditions:
            columns = clone.metadata(shard, sorted({condition.field for condition in conditions})).to_pydict()
            for condition in conditions:
                is_kept &= condition.holds(columns[condition.field])
        rows = np.flatnonzero(is_kept)
        if len(rows):
            yield Piece(shard, len(rows), None if len(rows) == length else rows)


def num_broken(clone: Clone, pieces: Sequence[Piece]) -> int:
    """Returns the number of broken images in a clone's shards, up to the last selected shard."""
    shards = clone.manifest.shards[: pieces[-1].shard + 1]
    return sum(sum(shard.verdicts.broken.values()) for shard in shards)


def _num_within(clone: Clone, scale: float) -> int:
    rounds = clone.rounds
    wanted = round(scale * max(rounds.base_counts))
    num_samples = rounds.num_samples_before(wanted)
    if not num_samples:
        raise UserError(f"data.scale {scale:g} leaves no sample of '{clone.root}'; raise it")
    if num_samples > len(clone):
        raise UserError(
            f"data.scale {scale:g} needs {num_samples:,} samples, but '{clone.root}' has {len(clone):,}, which is a "
            f"scale of {len(clone) / rounds.num_samples_before(max(rounds.base_counts)):.3g}; "
            "lower data.scale, or grow the clone"
        )
    return num_samples


def read_keys(path: str) -> list[str]:
    """Reads a file with one key per line; text after `#` is a comment.

    Raises:
        UserError: the file cannot be read, or has no keys.
    """
    return [line.text.partition("#")[0].strip() for line in read_list(path, "one key per line, or omit data.exclude")]


def find_excluded(clones: list[Clone], keys: list[str]) -> list[frozenset[int]]:
    """Returns, for each clone, the numbers of the samples with these keys; "2/<key>" is a key of the second clone only.

    Raises:
        UserError: no clone has one of the keys, or a clone cannot be read.
    """
    found: list[set[int]] = [set() for _ in clones]
    # Samples with the same index are close together in a clone, whatever their class.
    for key in sorted(keys, key=_index):
        prefix, slash, rest = key.rpartition("/")
        candidates = [number for number in range(len(clones)) if not slash or prefix == str(number + 1)]
        if not candidates:
            raise UserError(f"'{key}' in the list of keys names an unknown clone; there are {len(clones)} clones")
        reasons = []
        for number in candidates:
            try:
                found[number].add(clones[number].find(rest))
            except SampleNotFoundError as error:
                reasons.append(error)
        if len(reasons) == len(candidates):
            raise reasons[-1]
    return [frozenset(numbers) for numbers in found]


def _index(key: str) -> tuple[int, str]:
    number = key.rpartition("_")[2]
    return int(number) if number.isdecimal() else 0, key


def digest_of_keys(keys: list[str]) -> str:
    """Returns a digest of a list of keys that does not depend on the order of the lines; "" for an empty list."""
    return hashlib.sha256("\n".join(sorted(set(keys))).encode()).hexdigest() if keys else ""
