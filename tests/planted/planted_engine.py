"""A test engine of another package: images are noise from their seeds, and a variable makes images and workers fail.

The variable PLANTED is JSON: {"broken": [keys], "broken_once": [keys], "flagged": [keys], "all_broken": true,
"seconds": 0.01, "worker": "1", "fault": …, "delay": 4}. Only the worker that sees GPU "worker" has the fault: "memory"
(more than one image at a time), "memory for ever", "hangs", "full".
"""

import errno
import hashlib
import json
import math
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from builders.engines.base import GeneratedImage
from builders.errors import OutOfMemoryError
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
from builders.recipes.sample import Sample

USES_GPU = True
IS_SYNTHETIC = True
HAS_TOKENIZERS = False
PACKAGES = ("numpy",)

SATURATED = 4
"""Batch size up to which a batch takes as long as one image."""
_loaded: list[Execution] = []


def check(recipe: Recipe, num_rounds: int) -> None:
    """Accepts any settings."""


def pin(recipe: Recipe) -> Recipe:
    return recipe


def describe(recipe: Recipe) -> str:
    return "noise"


def json_fields(recipe: Recipe) -> dict[str, Any]:
    return {"guidance_scale": 1.0, "num_inference_steps": 1, "scheduler": "", "dtype": "float32"}


def load(recipe: Recipe, execution: Execution) -> "Noise":
    return Noise(recipe, execution, json.loads(os.environ.get("PLANTED", "{}")))


class Noise:
    environment = {"device": "none"}

    def __init__(self, recipe: Recipe, execution: Execution, faults: dict[str, Any]) -> None:
        self.recipe, self.execution, self.faults = recipe, execution, faults
        is_here = os.environ.get("CUDA_VISIBLE_DEVICES") == faults.get("worker", "none")
        self.fault = faults.get("fault", "") if is_here else ""
        if self.fault == "memory" and not _loaded:
            # Another worker measures the batch size meanwhile.
            time.sleep(self.faults.get("delay", 0))
        _loaded.append(execution)

    def __call__(self, samples: Sequence[Sample]) -> list[GeneratedImage]:
        time.sleep(self.faults.get("seconds", 0.0) * max(1.0, len(samples) / SATURATED))
        if self.fault == "memory for ever" or (self.fault == "memory" and self.execution.batch_size > 1):
            raise OutOfMemoryError(f"out of memory with batches of {self.execution.batch_size}")
        if self.fault == "hangs":
            time.sleep(10_000)
        if self.fault == "full":
            self._fill_the_disk()
        if log := self.faults.get("log"):
            with open(log, "a") as lines:
                lines.write("".join(f"{sample.key}\n" for sample in samples))
        return [self._image(sample) for sample in samples]

    def _image(self, sample: Sample) -> GeneratedImage:
        shape = (self.recipe.height, self.recipe.width, 3)
        # A hash function, because numpy's random streams may change between versions.
        content = hashlib.shake_128(str(sample.seed).encode()).digest(math.prod(shape))
        pixels = np.frombuffer(content, np.uint8).reshape(shape)
        is_broken = sample.key in self.faults.get("broken", []) or bool(self.faults.get("all_broken"))
        is_broken |= sample.attempt == 0 and sample.key in self.faults.get("broken_once", [])
        nsfw = int(sample.key in self.faults.get("flagged", [])) if self.recipe.safety != "off" else -1
        return GeneratedImage(np.zeros(shape, np.uint8) if is_broken else pixels, nsfw, is_broken=is_broken)

    def _fill_the_disk(self) -> None:
        """Raises the system's error for a full disk, by writing to a device that is always full."""
        with open("/dev/full", "wb") as file:
            try:
                file.write(bytes(1 << 16))
                file.flush()
            except OSError as error:
                assert error.errno == errno.ENOSPC
                raise
