"""From samples to images: batches of one shape, and another attempt for each image that came out broken or flagged.

Invariant: what comes out is a function of the recipe, the execution and the samples alone, and no image is missing. First
attempts come first, in order; rejected ones are made again together, in full batches; the last attempt is kept, whatever
its verdict.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from builders.engines.base import Generate, GeneratedImage, engine
from builders.errors import ShardError
from builders.planning.plan import Plan
from builders.recipes.sample import Sample

MAX_ATTEMPTS = 10
"""Attempts at an image, the first one included."""


@dataclass(frozen=True, kw_only=True)
class GeneratedSample:
    position: int
    """Place of the sample in the list that was given."""
    sample: Sample
    slot: int
    """Place in its batch."""
    generated: GeneratedImage
    verdict: str
    """The last verdict against this image or an earlier attempt at it: nsfw, broken, or "" for none."""


@dataclass(frozen=True, kw_only=True)
class GeneratedBatch:
    kept: list[GeneratedSample]
    num_first: int
    """Images of first attempts that the batch made, kept or not."""
    num_broken: int
    """How many of those are broken."""


def generate_samples(
    plan: Plan, samples: Sequence[Sample], generate: Generate, batch_size: int
) -> Iterator[GeneratedBatch]:
    """Makes the images of some samples, batch by batch.

    Raises:
        ShardError: files cannot be read; all of them are named.
    """
    waiting = [(position, sample, "") for position, sample in enumerate(samples)]
    can_retry = engine(plan.recipe.engine).IS_SYNTHETIC
    problems: list[str] = []
    for attempt in range(MAX_ATTEMPTS):
        again: list[tuple[int, Sample, str]] = []
        for start in range(0, len(waiting), batch_size):
            batch = waiting[start : start + batch_size]
            made = [
                GeneratedSample(
                    position=position, sample=sample, slot=slot, generated=image, verdict=_verdict(image) or verdict
                )
                for slot, ((position, sample, verdict), image) in enumerate(
                    zip(batch, generate([sample for _, sample, _ in batch]), strict=True)
                )
            ]
            problems += [one.generated.problem for one in made if one.generated.problem]
            is_last = attempt + 1 == MAX_ATTEMPTS or not can_retry
            rejected = {} if is_last else {one.position: one for one in made if _is_rejected(plan, one.generated)}
            again += [(one.position, _next_attempt(plan, one.sample), one.verdict) for one in rejected.values()]
            if not problems:
                yield GeneratedBatch(
                    kept=[one for one in made if one.position not in rejected],
                    num_first=0 if attempt else len(made),
                    num_broken=0 if attempt else sum(one.generated.is_broken for one in made),
                )
        if problems:
            raise ShardError(f"{'; '.join(problems)}; repair or remove {'it' if len(problems) == 1 else 'them'}")
        waiting = again
        if not waiting:
            return


def _verdict(image: GeneratedImage) -> str:
    if image.is_broken:
        return "broken"
    return "nsfw" if image.nsfw == 1 else ""


def _is_rejected(plan: Plan, image: GeneratedImage) -> bool:
    return image.is_broken or (plan.recipe.safety == "drop" and image.nsfw == 1)


def _next_attempt(plan: Plan, sample: Sample) -> Sample:
    return plan.sample(sample.label, sample.index, sample.attempt + 1)
