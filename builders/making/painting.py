"""From samples to pictures: batches of one shape, and another attempt for each image that the safety checker flagged.

Invariant: what comes out is a function of the recipe and the samples alone. First attempts come first, in order; flagged
ones are made again together, in full batches, until none is left.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from builders.format.errors import ShardError
from builders.making.engines.base import Paint, Painted
from builders.making.plan import Plan, Sample

MAX_ATTEMPTS = 10
"""Attempts at an image, the first one included, before its shard fails."""
MAX_SHOWN = 5
"""Keys that are told of images that failed."""


@dataclass(frozen=True, kw_only=True)
class PaintedSample:
    position: int
    """Place of the sample among those asked for."""
    sample: Sample
    slot: int
    """Place in its batch."""
    painted: Painted


def paint_samples(plan: Plan, samples: Sequence[Sample], paint: Paint) -> Iterator[list[PaintedSample]]:
    """Paints samples batch by batch; with `safety` drop, flagged images are not among what it yields.

    Raises:
        ShardError: an image was flagged at every attempt, or files cannot be read; all of them are named.
    """
    waiting = list(enumerate(samples))
    problems: list[str] = []
    for _ in range(MAX_ATTEMPTS):
        flagged: list[tuple[int, Sample]] = []
        for start in range(0, len(waiting), plan.recipe.batch_size):
            batch = waiting[start : start + plan.recipe.batch_size]
            pictures = paint([sample for _, sample in batch])
            made = [
                PaintedSample(position=position, sample=sample, slot=slot, painted=painted)
                for slot, ((position, sample), painted) in enumerate(zip(batch, pictures, strict=True))
            ]
            flagged += [(one.position, _next_attempt(plan, one.sample)) for one in made if _is_dropped(plan, one)]
            problems += [one.painted.problem for one in made if one.painted.problem]
            if not problems:
                yield [one for one in made if not _is_dropped(plan, one)]
        waiting = flagged
        if problems:
            raise ShardError(f"{'; '.join(problems)}; repair or remove {'it' if len(problems) == 1 else 'them'}")
        if not waiting:
            return
    keys = [sample.key for _, sample in waiting]
    shown = ", ".join(keys[:MAX_SHOWN]) + (f" and {len(keys) - MAX_SHOWN} more" if len(keys) > MAX_SHOWN else "")
    raise ShardError(
        f"the safety checker flagged all {MAX_ATTEMPTS} attempts at {shown}; give --safety flag, or another prompt"
    )


def _is_dropped(plan: Plan, one: PaintedSample) -> bool:
    return plan.recipe.safety == "drop" and one.painted.nsfw == 1


def _next_attempt(plan: Plan, sample: Sample) -> Sample:
    return plan.sample(sample.label, sample.index, sample.attempt + 1)
