"""Which samples of a clone a run trains on: those of a prefix, without a list of keys, with some values in their metadata.

A function of the clone and of these choices alone; the training order runs over what is left.
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
}  # fmt: skip
CONDITION = re.compile(r"\s*(\w+)\s*(==|!=|<=|>=|<|>)\s*(.*?)\s*")


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A comparison of a metadata field with a value, such as `nsfw != 1`."""

    field: str
    comparison: str
    value: Any

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """
        Raises:
            UserError: it is no comparison, of no field, or with a value of another type.
        """
        found = CONDITION.fullmatch(text)
        if not found:
            raise UserError(f"'{text}' is no condition; write a field, a comparison and a value, such as 'nsfw != 1'")
        field, comparison, value = found.groups()
        if field not in JSON_FIELDS:
            raise UserError(f"condition '{text}' asks for an unknown field; {suggest(field, list(JSON_FIELDS))}")
        kind = JSON_FIELDS[field]
        try:
            parsed = kind(value.strip("'\"") if kind is str else value)
        except ValueError:
            raise UserError(f"'{value}' in condition '{text}' is not of type {kind.__name__}, as {field} is") from None
        return cls(field=field, comparison=comparison, value=parsed)

    def holds(self, values: list[Any]) -> NDArray[np.bool_]:
        compare = COMPARISONS[self.comparison]
        return np.fromiter((compare(value, self.value) for value in values), dtype=np.bool_, count=len(values))


@dataclass(frozen=True)
class Piece:
    """The chosen samples of one shard."""

    shard: int
    length: int
    rows: Rows | None = None
    """Their rows in the shard; None: the first `length`."""


NOT_BROKEN = Condition(field="broken", comparison="==", value=0)


def select(
    clone: Clone, *, scale: float, conditions: list[Condition], excluded: frozenset[int], keeps_broken: bool = False
) -> list[Piece]:
    """The chosen samples, shard by shard; shards without any are left out.

    Args:
        clone: Where they are.
        scale: A multiple of the 1x clone, 0 the whole clone: the prefix that `fakeit-build make --scale` would have made.
        conditions: What their metadata have to meet.
        excluded: Sample numbers.
        keeps_broken: Whether images are taken that came out broken at every attempt.

    Raises:
        UserError: the clone is smaller than `scale`, or nothing is left.
    """
    num_samples = len(clone) if scale == 0 else _num_within(clone, scale)
    by_shard: dict[int, list[int]] = {}
    for number in excluded:
        shard, row = clone.locate(number)
        by_shard.setdefault(shard, []).append(row)
    pieces = list(_pieces(clone, num_samples, conditions, by_shard, keeps_broken))
    if not pieces:
        raise UserError(
            f"nothing is left of '{clone.root}'; loosen data.scale, data.where or data.exclude, or set data.keep_broken"
        )
    return pieces


def _pieces(
    clone: Clone, num_samples: int, given: list[Condition], excluded: dict[int, list[int]], keeps_broken: bool
) -> Iterator[Piece]:
    for shard, entry in enumerate(clone.manifest.shards):
        length = min(entry.num_samples, num_samples - clone.shard_starts[shard])
        if length <= 0:
            return
        # Only the few shards that say so hold any, so that no other's metadata are read for it.
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
    """How many images came out broken of the shards up to the last of some pieces."""
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
            f"data.scale {scale:g} is {num_samples:,} samples, but '{clone.root}' has {len(clone):,}, which is "
            f"{len(clone) / rounds.num_samples_before(max(rounds.base_counts)):.3g}; take less, or grow the clone"
        )
    return num_samples


def read_keys(path: str) -> list[str]:
    """The keys of a list, one a line; what follows `#` is left out.

    Raises:
        UserError: the file cannot be read, or has none.
    """
    return [line.text.partition("#")[0].strip() for line in read_list(path, "a key a line, or leave data.exclude out")]


def find_excluded(clones: list[Clone], keys: list[str]) -> list[frozenset[int]]:
    """For each clone the numbers of the samples with these keys; "2/<key>" is of the second clone alone.

    Raises:
        UserError: a key is in no clone, or a clone cannot be read.
    """
    found: list[set[int]] = [set() for _ in clones]
    for key in sorted(keys, key=_index):  # samples of one index lie close together, whatever their class
        prefix, slash, rest = key.rpartition("/")
        asked = [number for number in range(len(clones)) if not slash or prefix == str(number + 1)]
        if not asked:
            raise UserError(f"'{key}' in the list of keys names no clone; there are {len(clones)}")
        reasons = []
        for number in asked:
            try:
                found[number].add(clones[number].find(rest))
            except SampleNotFoundError as error:
                reasons.append(error)
        if len(reasons) == len(asked):
            raise reasons[-1]
    return [frozenset(numbers) for numbers in found]


def _index(key: str) -> tuple[int, str]:
    number = key.rpartition("_")[2]
    return int(number) if number.isdecimal() else 0, key


def digest_of_keys(keys: list[str]) -> str:
    """What a list excludes, whatever the file is called and its lines' order."""
    return hashlib.sha256("\n".join(sorted(set(keys))).encode()).hexdigest() if keys else ""
