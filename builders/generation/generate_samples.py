"""Generates the images of samples in batches of one shape, with another attempt for each broken, flagged or low one.

Invariant: the result is a function of the recipe, the execution and the samples alone, and no image is missing. First
attempts come first, in order. Rejected images are generated again together, in full batches. The last attempt is kept,
whatever its verdict.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass

from builders.checks.base import loaded_checks, scores
from builders.engines.base import Generate, GeneratedImage, engine, session, start
from builders.errors import ShardError
from builders.images.read import decode_image
from builders.planning.plan import Plan
from builders.recipes.checks import least_scores
from builders.recipes.recipe import Recipe
from builders.recipes.sample import Sample

Waiting = tuple[int, Sample, str]
"""Position of a sample that is not made yet, the sample, and the verdict against its last attempt."""
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
    """Latest verdict against this image or an earlier attempt at it: nsfw, broken, a check's name, or "" for none."""
    score: float
    """Score of this image by the check of its verdict, else by the last check; -1 without checks."""
    is_rejected: bool
    """Whether this image is not wanted, so that another attempt follows unless this was the last one."""


@dataclass(frozen=True, kw_only=True)
class GeneratedBatch:
    kept: list[GeneratedSample]
    num_first: int
    """Number of first attempts in the batch, kept or not."""
    num_broken: int
    """Number of broken images among the first attempts."""
    num_low: int
    """Number of images among the first attempts that a check rejects."""


def generate_samples(
    plan: Plan, samples: Sequence[Sample], generate: Generate, batch_size: int, host: Executor | None = None
) -> Iterator[GeneratedBatch]:
    """Generates the images of some samples, and yields them batch by batch.

    Args:
        host: Does the host's part of a batch and the checks while the device makes the next batch, within the
            `session` of the engine; without it, they are done in between.

    Raises:
        ShardError: files cannot be read; the message names all of them.
    """
    judge = Judge(plan.recipe, batch_size)
    waiting = [(position, sample, "") for position, sample in enumerate(samples)]
    can_retry = engine(plan.recipe.engine).IS_SYNTHETIC
    problems: list[str] = []
    for attempt in range(MAX_ATTEMPTS):
        again: list[Waiting] = []
        batches = [waiting[first : first + batch_size] for first in range(0, len(waiting), batch_size)]
        for made in _judged(batches, generate, judge, host):
            problems += [one.generated.problem for one in made if one.generated.problem]
            is_last = attempt + 1 == MAX_ATTEMPTS or not can_retry
            rejected = {} if is_last else {one.position: one for one in made if one.is_rejected}
            again += [(one.position, _next_attempt(plan, one.sample), one.verdict) for one in rejected.values()]
            if not problems:
                yield GeneratedBatch(
                    kept=[one for one in made if one.position not in rejected],
                    num_first=0 if attempt else len(made),
                    num_broken=0 if attempt else sum(one.generated.is_broken for one in made),
                    num_low=0 if attempt else sum(one.verdict in judge.least for one in made),
                )
        if problems:
            raise ShardError(f"{'; '.join(problems)}; repair or remove {'it' if len(problems) == 1 else 'them'}")
        waiting = again
        if not waiting:
            return


def _judged(
    batches: Sequence[Sequence[Waiting]], generate: Generate, judge: "Judge", host: Executor | None
) -> Iterator[list[GeneratedSample]]:
    if host is None:
        for batch in batches:
            with session(generate):
                made = judge(batch, generate([sample for _, sample, _ in batch]))
            yield made
        return
    waiting: deque[Future[list[GeneratedSample]]] = deque()
    for batch in batches:
        finish = start(generate, [sample for _, sample, _ in batch])
        waiting.append(host.submit(judge.finish, batch, finish))
        if len(waiting) > 1:
            yield waiting.popleft().result()
    yield from (future.result() for future in waiting)


class Judge:
    """Gives each image of a batch its verdict: by the engine, then by the recipe's checks in their order."""

    def __init__(self, recipe: Recipe, batch_size: int) -> None:
        self.recipe, self.batch_size = recipe, batch_size
        self.least = least_scores(recipe.checks)
        self.checks = loaded_checks(recipe) if recipe.checks else []

    def finish(self, batch: Sequence[Waiting], finish: Callable[[], list[GeneratedImage]]) -> list[GeneratedSample]:
        return self(batch, finish())

    def __call__(self, batch: Sequence[Waiting], images: Sequence[GeneratedImage]) -> list[GeneratedSample]:
        by_check = self._scores(images, [sample for _, sample, _ in batch])
        made = []
        for slot, ((position, sample, before), image) in enumerate(zip(batch, images, strict=True)):
            own = {name: scores[slot] for name, scores in by_check.items()}
            low = next((name for name, score in own.items() if score < self.least[name]), "")
            is_flagged, is_dropped = image.nsfw == 1, image.nsfw == 1 and self.recipe.safety == "drop"
            rejected = "broken" if image.is_broken else "nsfw" if is_dropped else low
            verdict = rejected or ("nsfw" if is_flagged else before)
            made.append(
                GeneratedSample(
                    position=position,
                    sample=sample,
                    slot=slot,
                    generated=image,
                    verdict=verdict,
                    score=own.get(verdict, [-1.0, *own.values()][-1]),
                    is_rejected=bool(rejected),
                )
            )
        return made

    def _scores(self, images: Sequence[GeneratedImage], samples: Sequence[Sample]) -> dict[str, list[float]]:
        """Returns the scores of the images by the name of the check. Batches have one shape, as in generating."""
        if not self.checks:
            return {}
        missing = self.batch_size - len(samples)
        pixels = [decode_image(one.image) if isinstance(one.image, bytes) else one.image for one in images]
        filled = ([*pixels, *[pixels[-1]] * missing], [*samples, *[samples[-1]] * missing])
        return {check.name: scores(check, *filled)[: len(samples)] for check in self.checks}


def _next_attempt(plan: Plan, sample: Sample) -> Sample:
    return plan.sample(sample.label, sample.index, sample.attempt + 1)
