"""READ FIRST. Crops of a decoded image: a window, resized, and then changed by a list of operations.

The crops depend only on (seed, epoch, key, crop number) and the image, not on the worker or rank that makes them. An
operation is a class with `sample` and `apply` (`operations`, `rand_augment`); its numbers are fields of `CropConfig`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fakeit_train.crops.config import CropConfig, CropKind
from fakeit_train.crops.operations import Blur, ColorJitter, Erase, Flip, Grayscale, Operation, Solarize
from fakeit_train.crops.rand_augment import RandAugment
from fakeit_train.crops.random_values import RandomValues, random_values
from fakeit_train.crops.window import Pixels, Window, resize, sample_window


@dataclass(frozen=True, slots=True)
class CropParameters:
    """What is done to one crop."""

    window: Window
    amounts: tuple[Any, ...]
    """What each operation sampled, in the order of the operations."""


@dataclass(frozen=True)
class Pipeline:
    """The augmentation of one kind of crops."""

    kind: CropKind
    ratio: tuple[float, float]
    operations: tuple[Operation, ...]

    @classmethod
    def of(cls, kind: CropKind, config: CropConfig) -> "Pipeline":
        found: list[Operation] = [
            Flip(config.flip),
            ColorJitter(config.jitter, config.jitter_strength),
            Grayscale(config.grayscale),
            Blur(kind.blur, config.blur_sigma),
            Solarize(kind.solarize),
        ]
        # Operations take their random numbers in turn. So those that are off by default must not take any then, or the
        # crops of older runs would change.
        if config.rand_augment:
            found.insert(1, RandAugment(config.rand_augment, config.rand_augment_magnitude))
        if config.erasing:
            found.append(Erase(config.erasing, config.erasing_scale, config.erasing_ratio, config.erasing_color))
        return cls(kind, config.ratio, tuple(found))

    def sample(self, height: int, width: int, values: RandomValues) -> CropParameters:
        """Samples what is done to one crop of an image (height, width)."""
        window = sample_window(height, width, self.kind.scale, self.ratio, values)
        return CropParameters(window, tuple(one.sample(values, self.kind.size) for one in self.operations))

    def apply(self, image: Pixels, parameters: CropParameters) -> Pixels:
        """Returns one augmented crop (size, size, 3) of an image."""
        crop = resize(image, *parameters.window, self.kind.size)
        for operation, amount in zip(self.operations, parameters.amounts, strict=True):
            if amount:
                crop = operation.apply(crop, amount)
        return crop


def make_pipelines(config: CropConfig) -> list[Pipeline]:
    """Returns the pipeline of each kind of crops."""
    return [Pipeline.of(kind, config) for kind in config.kinds]


def make_crops(
    images: Iterable[tuple[Pixels, str, int]], pipelines: Sequence[Pipeline], seed: int, count: int
) -> list[Pixels]:
    """Makes the crops of `count` images: one uint8 array (count, num_crops, size, size, 3) per kind.

    `images` yields pixels, key and epoch. An iterator can decode each image just before its crops are made, while the
    pixels are still in the processor's cache.
    """
    made = [np.empty((count, one.kind.num_crops, one.kind.size, one.kind.size, 3), dtype=np.uint8) for one in pipelines]
    for number, (image, key, epoch) in enumerate(images):
        crop = 0
        for array, pipeline in zip(made, pipelines, strict=True):
            for which in range(pipeline.kind.num_crops):
                parameters = pipeline.sample(image.shape[0], image.shape[1], random_values(seed, epoch, key, crop))
                array[number, which] = pipeline.apply(image, parameters)
                crop += 1
    return made
