"""Generates the images of samples in batches of one shape, with another attempt for each broken or flagged image.

Invariant: the result is a function of the recipe, the execution and the samples alone, and no image is missing. First
attempts come first, in order. Rejected images are generated again together, in full batches. The last attempt is kept,
whatever its verdict.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from builders.engines.base import Generate, GeneratedImage, engine
from builders.errors import ShardError
from builders.planning.plan import Plan
from builders.recipes.sample import Sample

MAX_ATTEMPTS = 10
"""Number of attempts at an image, including the first."""


@dataclass(frozen=True, kw_only=True)
class GeneratedSample:
    position: int
    """Index of the sample in the list that was passed in."""
    sample: Sample
    slot: int
    """Index of the sample in its batch."""
    generated: GeneratedImage
    verdict: str
    """Latest verdict against this image or an earlier attempt at it: nsfw, broken, or "" for none."""


@dataclass(frozen=True, kw_only=True)
class GeneratedBatch:
    kept: list[GeneratedSample]
    num_first: int
    """Number of first attempts in the batch, kept or not."""
    num_broken: int
    """Number of broken images among the first attempts."""


def generate_samples(
    plan: Plan, samples: Sequence[Sample], generate: Generate, batch_size: int
) -> Iterator[GeneratedBatch]:
    """Generates the images of some samples, and yields them batch by batch.

    Raises:
        ShardError: files cannot be read; the message names all of them.
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
