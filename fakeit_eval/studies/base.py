"""What a study is made of: clones, runs on them, and points, each a run with its place in the figure.

A study is a module of this folder with

    TITLE, X_LABEL              for the figure and the page
    EVALUATIONS                 which of test, probe and analyze its runs go through
    default_values(base)        what is varied where --values are not given
    points(base, values, options)       its runs, with where each stands in the figure
    draw(table, base)           the figure
    suite(base)                 of fakeit-eval, where it is not the base's

A base (`bases/`) is what a study is run on: digits in minutes, ImageNet-100 and ImageNet-1K with GPUs.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Clone:
    recipe: str
    """builder/config of fakeit-build."""
    options: tuple[str, ...] = ()
    """Of `fakeit-build make`."""
    path: str = ""
    """Where it is, if it is not to be made: real images as a clone, on a disk or at a URL."""

    @property
    def key(self) -> str:
        """Names its folder; clones that are the same have the same."""
        return _key(f"{self.recipe} {' '.join(self.options)}", asdict(self))


@dataclass(frozen=True, kw_only=True)
class Run:
    data: Clone
    config: str
    """Of fakeit-train."""
    settings: tuple[str, ...] = ()
    """Of its --set."""
    scale: float = 0.0
    """Prefix of the clone that it trains on; 0 is all."""
    seed: int = 0

    @property
    def key(self) -> str:
        return _key(f"{self.data.recipe} {self.config} {self.scale or ''} seed{self.seed}", asdict(self))


@dataclass(frozen=True, kw_only=True)
class Point:
    series: str
    """The curve, or the group of bars, that it belongs to."""
    x: float | str
    """What was varied."""
    run: Run


@dataclass(frozen=True, kw_only=True)
class Options:
    """Of the study command, where a study has a choice."""

    seeds: tuple[int, ...] = (0, 1, 2)
    fixed: str = ""
    """What stays the same over sizes: iterations or epochs; "" takes the base's."""
    real: str = ""
    """Class folders or clone of the real training images; digits ship theirs."""
    guidance: float = 0.0
    """Guidance scale of the performance card's synthetic images; 0 takes the recipe's, 7.5."""


@dataclass(frozen=True, kw_only=True)
class Base:
    name: str
    builder: str
    """Of the synthetic clones."""
    make_options: tuple[str, ...] = ()
    """Of every `fakeit-build make`."""
    images_per_class: int
    num_classes: int
    """Of the study's 1x clone."""
    recipe_images_per_class: int
    """Of what the recipe itself calls 1x, which is what fakeit-train's --scale counts in."""
    batch_size: int
    num_iterations: int
    """Of a run on the 1x clone."""
    settings: tuple[str, ...] = ()
    """Of every run's --set."""
    config: str
    """Of fakeit-train, for synthetic images."""
    real_config: str
    """The same for real ones."""
    real_options: tuple[str, ...] = ()
    """Of `fakeit-build make real_images/train`."""
    suite: str
    """Of fakeit-eval."""
    card_suite: str = ""
    """The same for the performance card; "" for the same one."""
    main_set: str
    """The test set whose top-1 is the study's."""
    steps: tuple[float, ...]
    """Numbers of diffusion steps that are compared."""
    steps_scheduler: str = ""
    """Scheduler that they are compared with; "" for the recipe's own."""
    fixed: str
    """What stays the same over sizes where nothing is said: the paper does not tell."""

    @property
    def num_images(self) -> int:
        """Of the 1x clone."""
        return self.images_per_class * self.num_classes

    @property
    def num_epochs(self) -> int:
        """Of a run on the 1x clone."""
        return max(1, round(self.num_iterations / (self.num_images // self.batch_size)))

    def synthetic(self, config: str, *options: str, scale: float = 1.0) -> Clone:
        """A clone of this base by its recipe's config, such as c_d_cfg2."""
        size = ("--images-per-class", f"{round(scale * self.images_per_class)}")
        return Clone(recipe=f"{self.builder}/{config}", options=(*self.make_options, *size, *options))

    def real(self, options: Options) -> Clone:
        """Its real training images."""
        if options.real and ("://" in options.real):
            return Clone(recipe="real_images/train", path=options.real)
        source = ("--source", options.real) if options.real else ()
        return Clone(recipe="real_images/train", options=(*source, *self.real_options))

    def runs(self, data: Clone, options: Options, augmentation: str = "dino", scale: float = 0.0) -> list[Run]:
        """One for each seed."""
        config = self.real_config if data.recipe.startswith("real_images") else self.config
        epochs = self._epochs(scale or 1.0, options.fixed or self.fixed)
        settings = (*self.settings, f"num_epochs={epochs}", f"augmentation={augmentation}")
        prefix = scale * self.images_per_class / self.recipe_images_per_class
        return [
            Run(data=data, config=config, settings=(*settings, f"data.seed={seed}"), scale=prefix, seed=seed)
            for seed in options.seeds
        ]

    def _epochs(self, scale: float, fixed: str) -> int:
        if fixed == "epochs":
            return self.num_epochs
        batches = max(1, int(self.num_images * scale) // self.batch_size)
        return max(1, round(self.num_iterations / batches))


def _key(name: str, fields: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:8]
    slug = re.sub(r"[^\w.]+", "-", name).strip("-.")[:60].strip("-.")
    return f"{slug}-{digest}"
