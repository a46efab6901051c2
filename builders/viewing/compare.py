"""Compares two clones: which settings differ, which images differ, and by how much.

Samples with the same key and recipe seed start from the same noise in every clone, so images are matched by key.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builders.errors import SampleNotFoundError
from builders.format.open_clone import Clone, open_clone

MAX_DECODED = 1000
"""Maximum number of pairs whose pixels are compared. If more pairs differ, the hash of their keys decides which."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    key: str
    rms: float
    """Root mean squared difference of the pixels, in gray levels from 0 to 255; infinite if the sizes differ."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    settings: dict[str, tuple[Any, Any]]
    """Recipe fields that differ, as (value in the first clone, value in the second).

    `classes` lists the ids that only one of the clones has.
    """
    num_both: int
    """Number of samples whose key is in both clones."""
    num_first: int
    """Number of samples whose key is only in the first clone."""
    num_second: int
    """Number of samples whose key is only in the second clone."""
    num_same_seed: int
    """Number of samples in both clones that start from the same noise."""
    num_identical: int
    """Number of samples in both clones whose image files are identical."""
    differences: list[Difference]
    """Pairs that differ, at most `max_decoded` of them, the largest difference first."""

    def rms(self, share: float) -> float:
        """Returns the quantile `share` (0 to 1) of the differences; 0 if there are none."""
        return float(np.quantile([found.rms for found in self.differences], share)) if self.differences else 0.0


def compare_clones(first: str, second: str, max_decoded: int = MAX_DECODED) -> Comparison:
    """Compares two clones, each on a disk or at a URL.

    Raises:
        UserError: one of them is no clone, or is broken.
    """
    a, b = open_clone(first), open_clone(second)
    both = same_seed = identical = 0
    pairs: list[tuple[str, int, int]] = []
    hashes = _Hashes(b)
    for number, key, digest, seed in _rows(a):
        try:
            other = b.find(key)
        except SampleNotFoundError:
            continue
        both += 1
        other_digest, other_seed = hashes.of(other)
        same_seed += seed == other_seed
        identical += digest == other_digest
        if digest != other_digest:
            pairs.append((key, number, other))
    pairs.sort(key=lambda pair: hashlib.sha256(pair[0].encode()).digest())
    found = [Difference(key=key, rms=_rms(a, one, b, other)) for key, one, other in pairs[:max_decoded]]
    return Comparison(
        settings=_settings(a, b),
        num_both=both,
        num_first=len(a) - both,
        num_second=len(b) - both,
        num_same_seed=same_seed,
        num_identical=identical,
        differences=sorted(found, key=lambda one: (-one.rms, one.key)),
    )


class _Hashes:
    """Looks up sha256 and seed of a clone's samples; holds the metadata of one shard at a time."""

    def __init__(self, clone: Clone) -> None:
        self.clone, self.shard = clone, -1
        self.columns: dict[str, list[Any]] = {}

    def of(self, number: int) -> tuple[str, int]:
        shard, row = self.clone.locate(number)
        if shard != self.shard:
            self.shard, self.columns = shard, self.clone.metadata(shard, ["sha256", "seed"]).to_pydict()
        return str(self.columns["sha256"][row]), int(self.columns["seed"][row])


def _rows(clone: Clone) -> Iterator[tuple[int, str, str, int]]:
    """Yields number, key, sha256 and seed of every sample."""
    for shard, start in enumerate(clone.shard_starts[:-1]):
        columns = clone.metadata(shard, ["key", "sha256", "seed"]).to_pydict()
        for row, (key, digest, seed) in enumerate(zip(*columns.values(), strict=True)):
            yield start + row, key, digest, seed


def _settings(a: Clone, b: Clone) -> dict[str, tuple[Any, Any]]:
    one, other = dict(a.manifest.recipe), dict(b.manifest.recipe)
    names, others = (set(clone.manifest.label_names) for clone in (a, b))
    one["classes"], other["classes"] = sorted(names - others), sorted(others - names)
    fields = [*one, *(name for name in other if name not in one)]
    return {name: (one.get(name), other.get(name)) for name in fields if one.get(name) != other.get(name)}


def _rms(a: Clone, one: int, b: Clone, other: int) -> float:
    first, second = a.decoded(one)[0], b.decoded(other)[0]
    if first.shape != second.shape:
        return float("inf")
    difference: NDArray[np.float64] = first.astype(np.float64) - second
    return float(np.sqrt((difference**2).mean()))


def describe(comparison: Comparison, num_shown: int = 5) -> list[str]:
    """Returns a comparison as the lines that the command prints."""
    found = comparison
    lines = [f"{name:<22}  {_short(one)}  |  {_short(other)}" for name, (one, other) in found.settings.items()]
    lines = lines or ["no setting differs"]
    lines += [
        "",
        f"{found.num_both:,} images in both, {found.num_first:,} only in the first, "
        f"{found.num_second:,} only in the second",
        f"{found.num_same_seed:,} of those in both start from the same noise, "
        f"{found.num_identical:,} are identical files",
    ]
    if found.differences:
        low, middle, high = (found.rms(share) for share in (0.1, 0.5, 0.9))
        lines += [
            f"{len(found.differences):,} differing pairs compared: root mean squared difference {middle:.1f} of 255 "
            f"(10 to 90 %: {low:.1f} to {high:.1f})",
            "largest: " + ", ".join(f"{one.key} {one.rms:.1f}" for one in found.differences[:num_shown]),
        ]
    return lines


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
