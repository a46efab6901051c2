"""READ FIRST. A builder: a named set of recipes, and the road from a recipe to a clone.

    recipe  ->  plan            what is made, a pure function           making/recipe.py, making/plan.py
    plan    ->  shards          painted by an engine, made by a runner  making/shard.py, making/engines, making/runners
    shards  ->  clone           moved into place, clone.json last       making/finalise.py

To add one, write a file with a subclass of `CloneBuilder` and its `RECIPES`; the file's name is its name.

    from builders.digits_sd import DigitsSD
    builder = DigitsSD(config_name="c_cfg2", images_per_class=200)
    builder.materialize("digits")                      # tar shards, metadata and card; run again to go on
    builder.as_streaming_dataset(split="train")        # images made as they are asked for
"""

import contextlib
import itertools
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from builders.classes.class_list import ClassEntry
from builders.classes.class_options import ClassOptions, with_counts
from builders.format.errors import UserError, missing_extra, near
from builders.format.manifest import CARD, MAKING, Manifest
from builders.format.storage import Storage
from builders.making.claims import FINALISE, Claims
from builders.making.finalise import MissingShardError, clean_up, finalise
from builders.making.models import pin_model
from builders.making.output import TARGET, Output, is_target, open_output, unfinished_target
from builders.making.plan import Plan
from builders.making.prompt_warnings import fetch_tokenizers, prompt_warnings
from builders.making.prompts import TEMPLATES
from builders.making.recipe import Recipe, override_recipe
from builders.making.runners.base import SECONDS_BETWEEN_LOOKS, Job, Report, Runner, runner
from builders.making.stopping import Stop, StoppedError
from builders.publishing.card import clone_card
from builders.publishing.card_edits import CardText

MAX_REMAKES = 2
"""Of shards that finalising finds damaged, before that is told."""


def paper_recipes(base: Recipe) -> dict[str, Recipe]:
    """A recipe for each prompt of the paper at guidance 7.5 and at 2: c_cfg7_5, c_cfg2, c_h_cfg7_5, …"""
    found = {}
    for prompt, template in TEMPLATES.items():
        for scale in (7.5, 2.0):
            config = f"{prompt}_cfg{str(scale).removesuffix('.0').replace('.', '_')}"
            found[config] = replace(base, name=f"{base.name}/{config}", prompt=template, guidance_scale=scale)
    return found


class CloneBuilder:
    """A `datasets` builder whose examples are generated. Keyword arguments override fields of the recipe.

    A builder's class knows nothing of `datasets`, which takes most of a second to import, so recipes are listed, planned and
    made without it. An instance is a `datasets.GeneratorBasedBuilder` as well (`making/dataset_builder.py`).
    """

    RECIPES: ClassVar[dict[str, Recipe]] = {}
    """By the name of the config."""
    TAKES_SOURCE: ClassVar[bool] = False
    """Whether the classes come from a file or folder of the user's."""

    if TYPE_CHECKING:  # an instance has all that `datasets` gives its builders

        def __getattr__(self, name: str) -> Any: ...

    def __new__(cls, *arguments: Any, **options: Any) -> Self:
        try:
            from builders.making.dataset_builder import as_dataset_builder
        except ModuleNotFoundError as error:
            raise missing_extra(error.name or "datasets", "build") from None
        made: Self = super().__new__(as_dataset_builder(cls))  # type: ignore[arg-type]
        return made

    def __init__(
        self,
        config_name: str | None = None,
        *,
        images_per_class: int | None = None,
        scale: float | None = None,
        cache_dir: str | None = None,
        **overrides: Any,
    ) -> None:
        options = ClassOptions(**{f.name: overrides.pop(f.name) for f in fields(ClassOptions) if f.name in overrides})
        recipe = pin_model(self.recipe(config_name, options, **overrides))
        self.plan = Plan(recipe, recipe.rounds(images_per_class, scale))
        super().__init__(  # type: ignore[call-arg]
            cache_dir=cache_dir, config_name=config_name, recipe=self.plan.recipe, num_rounds=self.plan.num_rounds
        )

    @classmethod
    def recipe(cls, config_name: str | None, options: ClassOptions = ClassOptions(), **overrides: Any) -> Recipe:
        """The recipe of a named config with some fields replaced and its classes filled in.

        Raises:
            UserError: unknown config or field, or a value out of range.
        """
        builder_name = cls.__module__.rsplit(".", 1)[-1]
        if config_name not in cls.RECIPES:
            raise UserError(
                f"unknown config '{config_name}' of '{builder_name}'; {near(str(config_name), list(cls.RECIPES))}"
            )
        recipe = override_recipe(cls.RECIPES[config_name], overrides)
        if options.source and not cls.TAKES_SOURCE:
            raise UserError(f"'{builder_name}' has its own classes; leave out --source, or use custom_sd")
        if options.skip_broken and recipe.engine != "folder":
            raise UserError(f"'{builder_name}' reads no images; leave out --skip-broken")
        classes = recipe.classes or cls.classes(options)
        return replace(recipe, classes=with_counts(classes, options.counts) if options.counts else classes)

    @classmethod
    def classes(cls, options: ClassOptions) -> tuple[ClassEntry, ...]:
        """What this builder paints, in sorted-wnid order."""
        raise NotImplementedError

    def materialize(self, out: str | Path, *, runner_name: str = "local", num_workers: int = 0) -> Manifest:
        """Makes the clone in a directory or at a URL; goes on where an earlier call stopped.

        Raises:
            UserError: the output holds something else, or cannot be written.
        """
        fetch_tokenizers(self.plan.recipe)
        for warning in prompt_warnings(self.plan):
            warnings.warn(warning, stacklevel=2)
        manifest = make_clone(self.plan, str(out), runner_name=runner_name, num_workers=num_workers)
        assert manifest is not None
        return manifest


class FailedShardsError(UserError):
    """Some shards could not be made; all others are, unless the run gave up."""

    def __init__(self, report: Report) -> None:
        super().__init__("; ".join(map(str, report.failures)))
        self.failures, self.has_given_up = report.failures, report.has_given_up


def make_clone(
    plan: Plan,
    out: str,
    *,
    shards: range | None = None,
    runner_name: str = "local",
    num_workers: int = 0,
    address: str = "",
    stop: Stop | None = None,
    text: CardText = CardText(),
    on_start: Callable[[int, int], object] = lambda num_done, num_samples: None,
    on_images: Callable[[int], object] = lambda num_images: None,
) -> Manifest | None:
    """Makes what is missing of a clone and finalises it when all shards are there; the engine behind `materialize`.

    Any number of these may be at work on one output, on any machines: they share the shards out by claims, and one of them
    finalises. With `shards`, makes only those and leaves finalising to a call without; so does a runner that makes a part, if
    the other parts are not there yet. `text` goes into the card.

    `on_start` hears how many images are finished and how many the clone will have, `on_images` of each batch. `stop` may end it
    early.

    Raises:
        FailedShardsError: some shards were given up.
        StoppedError: a signal ended it.
        UserError: the output holds something else or cannot be written, or no shard can be made.
    """
    storage = Storage(out)
    makers = runner(runner_name)
    makers.prepare(address)
    earlier = unfinished_target(plan, storage)
    if not earlier and (output := open_output(plan, storage)).is_complete:
        return _tidy(output, text)
    with Claims(storage, runner=runner_name, num_workers=makers.num_workers(num_workers, plan)) as claims:
        if earlier:
            with contextlib.suppress(MissingShardError):  # then it is no longer in the way
                _finalise(earlier, storage, claims, text)
        output = open_output(plan, storage)
        if output.is_complete:
            return _tidy(output, text)
        asked = range(plan.num_shards) if shards is None else shards
        num_made = plan.num_in(asked) - plan.num_in(output.missing_shards(asked))
        on_start(num_made, plan.num_in(asked))
        job = Job(
            plan=plan,
            out=out,
            shards=[],
            claims=claims,
            num_workers=num_workers,
            address=address,
            stop=stop or Stop(),
            on_images=on_images,
        )
        for num_remakes in itertools.count():
            try:
                return _make_and_finalise(makers, job, storage, asked, text, is_part=shards is not None)
            except MissingShardError:  # what is damaged is made again
                if num_remakes == MAX_REMAKES:
                    raise
        raise AssertionError("unreachable")


def _make_and_finalise(
    makers: Runner, job: Job, storage: Storage, asked: Sequence[int], text: CardText, *, is_part: bool
) -> Manifest | None:
    """One pass; None where shards are left to other calls.

    Raises:
        MissingShardError: a shard turned out to be damaged, and was removed.
    """
    plan = job.plan
    if missing := open_output(plan, storage).missing_shards(asked):
        _raise_for(makers.run(replace(job, shards=missing)))
    output = open_output(plan, storage)
    is_all_made = not is_part and not output.missing_shards(range(plan.num_shards))
    return _finalise(plan, storage, job.claims, text) if is_all_made or output.is_complete else None


def _raise_for(report: Report) -> None:
    if report.is_stopped:
        raise StoppedError
    if report.failures:
        raise FailedShardsError(report)


def _finalise(plan: Plan, storage: Storage, claims: Claims, text: CardText) -> Manifest:
    """Puts the clone together, or waits until another run has done so."""
    while True:
        output = open_output(plan, storage)
        if output.is_complete:
            return _tidy(output, text)
        if claims.take(FINALISE):
            try:
                with storage.locked():
                    output = open_output(plan, storage)
                    if not output.is_complete:
                        manifest = finalise(output, text)
                        clean_up(output, claims.files())
                        return manifest
            except (FileNotFoundError, UserError):
                # Another one may have finalised at the same time, and `_making` is gone.
                if not open_output(plan, storage).is_complete:
                    raise
            claims.release(FINALISE)
        else:
            time.sleep(SECONDS_BETWEEN_LOOKS)


def _tidy(output: Output, text: CardText) -> Manifest:
    """Deletes what a late run left in `_making` of a finished clone, and puts text that is given into its card."""
    assert output.old
    if text != CardText():
        output.storage.write(CARD, clone_card(output.storage, output.old, text))
    if is_target(output.plan, output.storage) or not output.storage.exists(TARGET):
        output.storage.remove_folder(MAKING)
    return output.old
