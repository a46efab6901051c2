"""The elements of a study: clones, training runs on them, and points; a point is a run and its position in the figure.

A study is a module of this folder with

    TITLE, X_LABEL                  title of the page, and label of the figure's x-axis
    EVALUATIONS                     the evaluations of its runs: test, probe, analyze; of its clones: data
    default_values(base)            the values to compare if --values is not given
    points(base, values, options)   the runs, and the position of each in the figure
    draw(table, base)               draws the figure
    conclude(table, base)           optional: a sentence on the result, for the page
    suite(base)                     optional: the suite of fakeit-eval, if it is not the base's

A base (`fakeit_eval/study_bases`) is the dataset and the settings that a study runs on: digits in minutes,
ImageNet-100 and ImageNet-1K with GPUs."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Clone:
    """Training images of a run: a clone to make, or an existing one."""

    recipe: str
    """BUILDER/CONFIG of fakeit-build."""
    options: tuple[str, ...] = ()
    """Options of `fakeit-build make`."""
    path: str = ""
    """Directory or URL of an existing clone of real images; "" if the clone is made."""

    @property
    def key(self) -> str:
        """Name of its folder; equal clones have the same key."""
        return _key(f"{self.recipe} {' '.join(self.options)}", asdict(self))


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training run of fakeit-train."""

    data: Clone
    config: str
    """Config of fakeit-train."""
    settings: tuple[str, ...] = ()
    """Arguments of its --set."""
    scale: float = 0.0
    """Size of the clone's prefix that it trains on, in multiples of the recipe's 1x; 0 means the whole clone."""
    seed: int = 0

    @property
    def key(self) -> str:
        """Name of its folder; equal runs have the same key."""
        return _key(f"{self.data.recipe} {self.config} {self.scale or ''} seed{self.seed}", asdict(self))


@dataclass(frozen=True, kw_only=True)
class Point:
    """A run and its position in the figure."""

    series: str
    """The curve that it belongs to, or the color of its bars."""
    x: float | str
    """The value that is varied; "" if only series are compared."""
    run: Run


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `fakeit-eval study` that change a study's runs."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds; there is a run for each of them."""
    fixed: str = ""
    """What stays the same over dataset sizes: iterations or epochs; "" takes the base's choice."""
    real: str = ""
    """Class folders or URL of a clone with the real training images; those of the digits ship with the package."""
    guidance: float = 0.0
    """Guidance scale of the performance card's synthetic images; 0 takes the recipe's, 7.5."""


@dataclass(frozen=True, kw_only=True)
class Base:
    """The dataset and the settings that a study runs on."""

    name: str
    builder: str
    """Builder of the synthetic clones."""
    make_options: tuple[str, ...] = ()
    """Options of every `fakeit-build make` of a synthetic clone."""
    images_per_class: int
    """Images of each class in the study's 1x clone."""
    num_classes: int
    recipe_images_per_class: int
    """Images of each class in the recipe's own 1x, the unit of fakeit-train's --scale."""
    batch_size: int
    """Images of a training batch."""
    num_iterations: int
    """Training iterations of a run on the 1x clone."""
    settings: tuple[str, ...] = ()
    """Arguments of every run's --set."""
    config: str
    """Config of fakeit-train for synthetic images."""
    real_config: str
    """Config of fakeit-train for real images."""
    real_options: tuple[str, ...] = ()
    """Options of `fakeit-build make real_images/train`."""
    suite: str
    """Suite of fakeit-eval."""
    card_suite: str = ""
    """Suite of fakeit-eval for the performance card; "" means `suite`."""
    main_set: str
    """Test set whose top-1 is the study's main metric."""
    shifted_sets: tuple[str, ...]
    """Test sets of the same classes in other styles: the sketches and the renditions."""
    backbone: str = ""
    """Network of fakeit-eval whose features clones are measured with; "" means one trained on the real images."""
    classifier: str = ""
    """Network of fakeit-eval that recognizes images of clones; "" means the same."""
    steps: tuple[float, ...]
    """Numbers of diffusion steps that the study `steps` compares."""
    steps_scheduler: str = ""
    """Scheduler of the study `steps`; "" means the recipe's own."""
    fixed: str
    """What stays the same over dataset sizes by default, iterations or epochs; the paper does not say."""

    @property
    def num_images(self) -> int:
        """Images of the 1x clone."""
        return self.images_per_class * self.num_classes

    @property
    def num_epochs(self) -> int:
        """Epochs of a run on the 1x clone, rounded."""
        return max(1, round(self.num_iterations / (self.num_images // self.batch_size)))

    def synthetic(self, config: str, *options: str, scale: float = 1.0) -> Clone:
        """A synthetic clone of this base.

        Args:
            config: Config of the recipe, such as c_d_cfg2.
            options: Further options of `fakeit-build make`.
            scale: Size, in multiples of the study's 1x.
        """
        size = ("--images-per-class", f"{round(scale * self.images_per_class)}")
        return Clone(recipe=f"{self.builder}/{config}", options=(*self.make_options, *size, *options))

    def real(self, options: Options) -> Clone:
        """The real training images of this base: an existing clone if `options.real` is a URL, else a clone to make."""
        if options.real and ("://" in options.real):
            return Clone(recipe="real_images/train", path=options.real)
        source = ("--source", options.real) if options.real else ()
        return Clone(recipe="real_images/train", options=(*source, *self.real_options))

    def all_real(self, options: Options) -> Clone:
        """All real training images of this base, whatever number of them a run trains on."""
        if options.real and ("://" in options.real):
            return Clone(recipe="real_images/train", path=options.real)
        return Clone(recipe="real_images/train", options=("--source", options.real) if options.real else ())

    def runs(self, data: Clone, options: Options, augmentation: str = "dino", scale: float = 0.0) -> list[Run]:
        """The training runs on a clone, one for each seed.

        Args:
            augmentation: Augmentation of fakeit-train.
            scale: Size of the clone's prefix to train on, in multiples of the study's 1x; 0 means the whole clone.
        """
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
