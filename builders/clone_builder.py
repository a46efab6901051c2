"""READ FIRST. A builder: a named set of recipes, and the road from a recipe to a clone.

    recipe  ->  plan            what is made, a pure function           making/recipe.py, making/plan.py
    plan    ->  shards          painted by an engine, made by a runner  making/shard.py, making/engines, making/runners
    shards  ->  clone           moved into place, clone.json last       making/finalise.py

To add one, write a file with a subclass of `CloneBuilder` and its `BUILDER_CONFIGS`; the file's name is its name.

    from builders.digits_sd import DigitsSD
    builder = DigitsSD(config_name="c_cfg2", images_per_class=200)
    builder.materialize("digits")                      # tar shards, metadata and card; run again to go on
    builder.as_streaming_dataset(split="train")        # images made as they are asked for
"""

import contextlib
import hashlib
import itertools
import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import datasets
import yaml
from datasets.features.features import Features

from builders.classes.class_list import ClassEntry
from builders.classes.class_options import ClassOptions, with_counts
from builders.format.errors import UserError, near
from builders.format.manifest import MAKING, Manifest
from builders.format.schema import card_features
from builders.format.storage import Storage
from builders.making.claims import FINALISE, Claims
from builders.making.engines.base import Paint, engine
from builders.making.finalise import MissingShardError, clean_up, finalise
from builders.making.models import pin_model
from builders.making.output import TARGET, Output, is_target, open_output, unfinished_target
from builders.making.painting import paint_samples
from builders.making.plan import Plan, Sample
from builders.making.prompt_warnings import fetch_tokenizers, prompt_warnings
from builders.making.prompts import TEMPLATES
from builders.making.recipe import Recipe, override_recipe
from builders.making.runners.base import SECONDS_BETWEEN_LOOKS, Job, Report, Runner, runner
from builders.making.shard import encode_sample
from builders.making.stopping import Stop, StoppedError

MAX_REMAKES = 2
"""Of shards that finalising finds damaged, before that is told."""
MAX_SHARD = 1 << 31
"""More samples than a shard holds."""


@dataclass
class CloneConfig(datasets.BuilderConfig):  # type: ignore[misc]
    """A named recipe. `datasets` sets attributes on configs, so all that matters is in one frozen field."""

    recipe: Recipe | None = None
    num_rounds: int = 0

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: Features | None = None) -> str:
        """Name of the cache: it changes with the recipe, the length and the versions that pixels depend on."""
        assert self.recipe is not None
        facts = [self.recipe.hash, self.num_rounds, engine(self.recipe.engine).environment(self.recipe)]
        return f"{self.name}-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]}"


def paper_configs(base: Recipe) -> list[CloneConfig]:
    """A config for each prompt of the paper at guidance 7.5 and at 2: c_cfg7_5, c_cfg2, c_h_cfg7_5, …"""
    return [
        CloneConfig(
            name=f"{prompt}_cfg{str(scale).removesuffix('.0').replace('.', '_')}",
            version=datasets.Version("1.0.0"),
            description=f'prompt "{template}", guidance {scale:g}',
            recipe=replace(
                base,
                name=f"{base.name}/{prompt}_cfg{str(scale).removesuffix('.0').replace('.', '_')}",
                prompt=template,
                guidance_scale=scale,
            ),
        )
        for prompt, template in TEMPLATES.items()
        for scale in (7.5, 2.0)
    ]


class CloneBuilder(datasets.GeneratorBasedBuilder):  # type: ignore[misc]
    """A `datasets` builder whose examples are painted. Keyword arguments override fields of the recipe."""

    BUILDER_CONFIG_CLASS = CloneConfig
    BUILDER_CONFIGS: ClassVar[list[CloneConfig]] = []
    TAKES_SOURCE: ClassVar[bool] = False
    """Whether the classes come from a file or folder of the user's."""

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
        plan = Plan(recipe, recipe.rounds(images_per_class, scale))
        super().__init__(cache_dir=cache_dir, config_name=config_name, recipe=plan.recipe, num_rounds=plan.num_rounds)

    @classmethod
    def recipe(cls, config_name: str | None, options: ClassOptions = ClassOptions(), **overrides: Any) -> Recipe:
        """The recipe of a named config with some fields replaced and its classes filled in.

        Raises:
            UserError: unknown config or field, or a value out of range.
        """
        configs = {config.name: config for config in cls.BUILDER_CONFIGS}
        builder_name = cls.__module__.rsplit(".", 1)[-1]
        if config_name not in configs:
            raise UserError(
                f"unknown config '{config_name}' of '{builder_name}'; {near(str(config_name), list(configs))}"
            )
        base = configs[config_name].recipe
        assert base is not None
        recipe = override_recipe(base, overrides)
        if options.source and not cls.TAKES_SOURCE:
            raise UserError(f"'{builder_name}' has its own classes; leave out --source, or use custom_sd")
        classes = recipe.classes or cls.classes(options)
        return replace(recipe, classes=with_counts(classes, options.counts) if options.counts else classes)

    @classmethod
    def classes(cls, options: ClassOptions) -> tuple[ClassEntry, ...]:
        """What this builder paints, in sorted-wnid order."""
        raise NotImplementedError

    @property
    def plan(self) -> Plan:
        return Plan(self.config.recipe, self.config.num_rounds)

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

    # What `datasets` asks of a builder.

    def _info(self) -> datasets.DatasetInfo:
        recipe: Recipe = self.config.recipe
        listed = yaml.safe_load(yaml.safe_dump(card_features(recipe.image_format, recipe.label_names)))
        return datasets.DatasetInfo(
            description=self.config.description or "", features=Features._from_yaml_list(listed)
        )

    def _split_generators(self, dl_manager: object) -> list[datasets.SplitGenerator]:
        plan = self.plan
        # A batch each, so that a stream that goes on loses one at most; a whole shard where flagged images wait for its end.
        stride = plan.recipe.batch_size if plan.recipe.safety != "drop" else MAX_SHARD
        places = [
            (shard, start, start + stride)
            for shard in range(plan.num_shards)
            for start in range(0, plan.shard_length(shard), stride)
        ]
        return [datasets.SplitGenerator(name=plan.recipe.split, gen_kwargs={"places": places})]

    def _generate_examples(self, places: list[tuple[int, int, int]]) -> Iterator[tuple[str, dict[str, Any]]]:
        plan = self.plan
        paint = engine(plan.recipe.engine).load(plan.recipe)
        for shard, start, stop in places:
            yield from paint_examples(plan, plan.shard_samples(shard)[start:stop], paint)


def paint_examples(plan: Plan, samples: list[Sample], paint: Paint) -> Iterator[tuple[str, dict[str, Any]]]:
    """Samples as `datasets` examples, equal to what the clone holds; images made again come last."""
    for batch in paint_samples(plan, samples, paint):
        for made in batch:
            picture, fields = encode_sample(plan.recipe, made)
            fields["sha256"] = hashlib.sha256(picture).hexdigest()
            key, name = made.sample.key, plan.recipe.image_format
            image = {"bytes": picture, "path": f"{key}.{name}"}
            yield key, {name: image, "cls": made.sample.label, "json": fields, "__key__": key}


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
    on_start: Callable[[int, int], object] = lambda num_done, num_samples: None,
    on_images: Callable[[int], object] = lambda num_images: None,
) -> Manifest | None:
    """Makes what is missing of a clone and finalises it when all shards are there; the engine behind `materialize`.

    Any number of these may be at work on one output, on any machines: they share the shards out by claims, and one of them
    finalises. With `shards`, makes only those and leaves finalising to a call without; so does a runner that makes a part, if
    the other parts are not there yet. `on_start` hears how many images are finished and how many are asked for, `on_images`
    of each batch; `stop` may end it early.

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
        return _tidy(output)
    with Claims(storage, runner=runner_name, num_workers=makers.num_workers(num_workers, plan)) as claims:
        if earlier:
            with contextlib.suppress(MissingShardError):  # then it is no longer in the way
                _finalise(earlier, storage, claims)
        output = open_output(plan, storage)
        if output.is_complete:
            return _tidy(output)
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
                return _make_and_finalise(makers, job, storage, asked, is_part=shards is not None)
            except MissingShardError:  # what is damaged is made again
                if num_remakes == MAX_REMAKES:
                    raise
        raise AssertionError("unreachable")


def _make_and_finalise(
    makers: Runner, job: Job, storage: Storage, asked: Sequence[int], *, is_part: bool
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
    return _finalise(plan, storage, job.claims) if is_all_made or output.is_complete else None


def _raise_for(report: Report) -> None:
    if report.is_stopped:
        raise StoppedError
    if report.failures:
        raise FailedShardsError(report)


def _finalise(plan: Plan, storage: Storage, claims: Claims) -> Manifest:
    """Puts the clone together, or waits until another run has done so."""
    while True:
        output = open_output(plan, storage)
        if output.is_complete:
            return _tidy(output)
        if claims.take(FINALISE):
            try:
                with storage.locked():
                    output = open_output(plan, storage)
                    if not output.is_complete:
                        manifest = finalise(output)
                        clean_up(output, claims.files())
                        return manifest
            except (FileNotFoundError, UserError):
                # Another one may have finalised at the same time, and `_making` is gone.
                if not open_output(plan, storage).is_complete:
                    raise
            claims.release(FINALISE)
        else:
            time.sleep(SECONDS_BETWEEN_LOOKS)


def _tidy(output: Output) -> Manifest:
    """Of a clone that is whole: what a run that came too late has still put into `_making` goes."""
    assert output.old
    if is_target(output.plan, output.storage) or not output.storage.exists(TARGET):
        output.storage.remove_folder(MAKING)
    return output.old
