"""Two clones side by side: settings that differ, images that differ, and by how much.

Clones share the noise of a sample that has the same key and recipe seed, so images are joined by key.
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
"""Pairs whose pixels are compared; of more, those whose keys come first by their hash."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    key: str
    rms: float
    """Root mean squared difference of the pixels, in grey levels from 0 to 255; infinite where sizes differ."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    settings: dict[str, tuple[Any, Any]]
    """Fields of the recipes that differ, of the first and of the second; `classes` as ids that only one has."""
    num_both: int
    """Samples with the same key."""
    num_first: int
    num_second: int
    """Samples whose key only one has."""
    num_same_seed: int
    """Of both, those that began at the same noise."""
    num_identical: int
    """Of both, those with the same bytes."""
    differences: list[Difference]
    """Of those that differ, or of `MAX_DECODED` of them, the largest first."""

    def rms(self, share: float) -> float:
        """A quantile of the differences; 0 where there are none."""
        return float(np.quantile([found.rms for found in self.differences], share)) if self.differences else 0.0


def compare_clones(first: str, second: str, max_decoded: int = MAX_DECODED) -> Comparison:
    """Compares two clones, on a disk or at URLs.

    Raises:
        UserError: one is no clone, or is broken.
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
    """sha256 and seed of a clone's samples, a shard at a time."""

    def __init__(self, clone: Clone) -> None:
        self.clone, self.shard = clone, -1
        self.columns: dict[str, list[Any]] = {}

    def of(self, number: int) -> tuple[str, int]:
        shard, row = self.clone.locate(number)
        if shard != self.shard:
            self.shard, self.columns = shard, self.clone.metadata(shard, ["sha256", "seed"]).to_pydict()
        return str(self.columns["sha256"][row]), int(self.columns["seed"][row])


def _rows(clone: Clone) -> Iterator[tuple[int, str, str, int]]:
    """Number, key, sha256 and seed of every sample."""
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
    """The lines that people read."""
    found = comparison
    lines = [f"{name:<22}  {_short(one)}  |  {_short(other)}" for name, (one, other) in found.settings.items()]
    lines = lines or ["no setting differs"]
    lines += [
        "",
        f"{found.num_both:,} images in both, {found.num_first:,} in the first alone, {found.num_second:,} in the second alone",
        f"{found.num_same_seed:,} of both from the same noise, {found.num_identical:,} with the same bytes",
    ]
    if found.differences:
        low, middle, high = (found.rms(share) for share in (0.1, 0.5, 0.9))
        lines += [
            f"{len(found.differences):,} that differ: root mean squared difference {middle:.1f} of 255 "
            f"(10 to 90 %: {low:.1f} to {high:.1f})",
            "most: " + ", ".join(f"{one.key} {one.rms:.1f}" for one in found.differences[:num_shown]),
        ]
    return lines


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
