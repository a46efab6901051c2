"""Siblings, images of one prompt, in the training order: which shards stay together, and how a block is dealt to batches.

A clone has a prompt's images in consecutive rounds, and a shard is a number of rounds. So a prompt's images lie within few
consecutive shards, which the order keeps together.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Siblings:
    """What the training order needs to know of prompts."""

    count: int
    """Number of siblings that belong into one batch; at least 2."""
    units: tuple[range, ...]
    """Consecutive shards that are shuffled as one, in order; together they are all shards."""
    prompt_ids: Callable[[int], Numbers]
    """Returns the prompt id (n,) of each sample of a shard."""


def shards_together(rounds_per_shard: int, images_per_prompt: int) -> int:
    """Returns the number of consecutive shards that hold whole prompts, if all classes have as many images.

    Prompts change every `images_per_prompt` rounds, and shards every `rounds_per_shard` rounds.
    """
    return images_per_prompt // math.gcd(rounds_per_shard, images_per_prompt)


def siblings_of(samples: Numbers, prompt_ids: Numbers, count: int) -> list[Numbers]:
    """Returns the samples (n,) in lists of at most `count` siblings, in the order in which their first samples occur.

    `prompt_ids` (n,) are theirs. The images of a prompt fill one list after the other.
    """
    found: list[list[int]] = []
    unfilled: dict[int, list[int]] = {}
    for sample, prompt in zip(samples.tolist(), prompt_ids.tolist(), strict=True):
        if prompt not in unfilled or len(unfilled[prompt]) == count:
            found.append([])
            unfilled[prompt] = found[-1]
        unfilled[prompt].append(sample)
    return [np.array(some, dtype=np.int64) for some in found]


def bundle(lists: Sequence[Numbers], count: int) -> list[Numbers]:
    """Returns the lists with shorter ones put together, as many as `count` samples hold, so that batches come out even.

    Each takes the first bundle with room for it.
    """
    found: list[list[Numbers]] = []
    with_room: dict[int, deque[int]] = {room: deque() for room in range(1, count)}
    for samples in lists:
        size = len(samples)
        room = next((room for room in range(size, count) if with_room[room]), 0)
        if room:
            position = with_room[room].popleft()
            found[position].append(samples)
        else:
            position, room = len(found), count
            found.append([samples])
        if room - size > 0:
            with_room[room - size].append(position)
    return [np.concatenate(some) for some in found]


def deal(lists: Sequence[Numbers], start: int, batch_size: int) -> Numbers:
    """Returns all samples in a sequence in which no list crosses the end of a batch, as far as possible.

    The first list that still fits into the batch comes next. If none does, the first one is cut, and its rest fills the
    first gap that it fits into.

    Args:
        lists: Lists of samples, in shuffled order.
        start: Position of the first sample in the epoch; batches end at multiples of `batch_size`.
        batch_size: Number of samples of a batch.
    """
    waiting: dict[int, deque[tuple[int, Numbers]]] = {}
    for rank, samples in enumerate(lists):
        waiting.setdefault(len(samples), deque()).append((rank, samples))
    dealt: list[Numbers] = []
    room = batch_size - start % batch_size
    while waiting:
        fitting = [size for size in waiting if size <= room] or list(waiting)
        size = min(fitting, key=lambda one: waiting[one][0][0])
        rank, samples = waiting[size].popleft()
        if not waiting[size]:
            del waiting[size]
        dealt.append(samples[:room])
        if size > room:
            # It waits behind all others; at once, it would shift the lists of every batch after it.
            waiting.setdefault(size - room, deque()).append((rank + len(lists), samples[room:]))
        room = room - len(dealt[-1]) or batch_size
    return np.concatenate(dealt)
