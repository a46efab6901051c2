"""Times making a clone with the embedded model on a CPU, compared with the loops that people write; arms run in turns.

python -m benchmarks.generate
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.pairs import ratios, spread, time_in_turns
from builders.diffusion.loading import load_pipeline
from builders.diffusion.prompt_encoder import PromptEncoder
from builders.diffusion.sampling import Sampler
from builders.digits_sd import DigitsSD
from builders.engines.base import GeneratedImage, pin_model
from builders.engines.diffusion import PACKAGES
from builders.generation.generate_shard import generate_shard_tar
from builders.make_clone import make_clone
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
from builders.recipes.sample import Sample
from builders.storage.base import open_storage
from tests.acceptance.record import record

NUM_CLASSES = 6
"""Number of classes in the arms with full batches. Each class fills one batch, also in the loop over classes."""
NUM_ROUNDS = 11
EXECUTION = DigitsSD.EXECUTION
NUM_ROUNDS_ONE_BY_ONE = 3
SECONDS_A_BATCH = 0.05
"""Time of a fast model on a fast GPU, for the fraction of time that is not the model's."""


def settings(recipe: Recipe, samples: list[Sample]) -> dict[str, Any]:
    return {
        "prompt": [sample.prompt for sample in samples],
        "generator": [torch.Generator("cpu").manual_seed(sample.seed) for sample in samples],
        "guidance_scale": recipe.guidance_scale,
        "num_inference_steps": recipe.num_inference_steps,
        "width": recipe.width,
        "height": recipe.height,
    }


def ours(plan: Plan) -> None:
    """Makes the whole clone: JPEG, hashes, json, metadata, shards, manifest, card."""
    with tempfile.TemporaryDirectory() as folder:
        make_clone(plan, f"{folder}/clone", execution=EXECUTION)


def bare(plan: Plan) -> None:
    """Runs the pipeline on the same batches; encodes and stores nothing."""
    recipe, pipeline = plan.recipe, load_pipeline(plan.recipe, EXECUTION)
    for batch in in_batches(all_samples(plan)):
        pipeline(**settings(recipe, batch), output_type="np")


def one_by_one(plan: Plan) -> None:
    """Runs the loop that people write: one image per call, saved by PIL into the folder of its class."""
    save_batches(plan, [[sample] for sample in all_samples(plan)])


def class_by_class(plan: Plan) -> None:
    """Runs the same loop class by class, in batches of our size."""
    samples = sorted(all_samples(plan), key=lambda sample: (sample.label, sample.index))
    classes = [[s for s in samples if s.label == label] for label in range(len(plan.recipe.classes))]
    save_batches(plan, [batch for members in classes for batch in in_batches(members)])


def save_batches(plan: Plan, batches: list[list[Sample]]) -> None:
    recipe, pipeline = plan.recipe, load_pipeline(plan.recipe, EXECUTION)
    with tempfile.TemporaryDirectory() as folder:
        for batch in batches:
            images = pipeline(**settings(recipe, batch)).images
            for sample, image in zip(batch, images, strict=True):
                path = Path(folder) / sample.wnid / f"{sample.index}.jpg"
                path.parent.mkdir(exist_ok=True)
                image.save(path, quality=recipe.image_quality)


def embedding_arms(plan: Plan) -> dict[str, Callable[[], None]]:
    """Returns arms that pass prompts as embeddings from the cache, and as text, in 50 and in 2 steps."""
    arms: dict[str, Callable[[], None]] = {}
    for num_steps in (50, 2):
        recipe = replace(plan.recipe, num_inference_steps=num_steps)
        cached, text = (Sampler(recipe, EXECUTION, PACKAGES) for _ in range(2))
        text.encode = PromptEncoder(text.pipeline, replace(text.family, embeddings=()), recipe)
        batches = in_batches(all_samples(plan))[: 1 if num_steps == 50 else 4]
        for name, sampler in (("cached", cached), ("text", text)):
            arms[f"{name}, {num_steps} steps"] = partial(run_batches, sampler, batches)
    return arms


def run_batches(sampler: Sampler, batches: list[list[Sample]]) -> None:
    for batch in batches:
        sampler(batch)


class SleepingModel:
    """A model that takes `SECONDS_A_BATCH` and leaves the CPU idle meanwhile, as a GPU does; its images are noise."""

    environment: dict[str, str] = {}

    def __init__(self, recipe: Recipe, batch_size: int) -> None:
        shape = (batch_size, recipe.height, recipe.width, 3)
        smooth = np.random.default_rng(0).integers(0, 256, (batch_size, 32, 32, 3), np.uint8)
        self.images = np.repeat(np.repeat(smooth, shape[1] // 32, 1), shape[2] // 32, 2)

    def __call__(self, samples: Sequence[Sample]) -> list[GeneratedImage]:
        time.sleep(SECONDS_A_BATCH)
        return [GeneratedImage(self.images[slot]) for slot in range(len(samples))]


def host_fraction(plan: Plan, size: int, batch_size: int) -> float:
    """Returns the fraction of the time of making a shard that is not the model's, at size x size pixels."""
    recipe, execution = replace(plan.recipe, width=size, height=size), Execution(batch_size=batch_size)
    model = SleepingModel(recipe, batch_size)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        for _ in generate_shard_tar(Plan(recipe, plan.num_rounds), 0, model, execution, open_storage(folder)):
            pass
        total = time.perf_counter() - start
    return 1 - SECONDS_A_BATCH * -(-plan.shard_length(0) // batch_size) / total


def all_samples(plan: Plan) -> list[Sample]:
    return [sample for shard in range(plan.num_shards) for sample in plan.shard_samples(shard)]


def in_batches(samples: list[Sample], size: int = EXECUTION.batch_size) -> list[list[Sample]]:
    return [samples[start : start + size] for start in range(0, len(samples), size)]


def with_threads(num_threads: int, arm: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        torch.set_num_threads(num_threads)
        arm()

    return run


def main() -> None:
    recipe = pin_model(DigitsSD.recipe("c_cfg2"))
    plan = Plan(replace(recipe, classes=recipe.classes[:NUM_CLASSES]), EXECUTION.batch_size)
    few = Plan(recipe, EXECUTION.batch_size // len(recipe.classes))
    batches = {"ours": ours, "bare pipeline": bare, "class by class": class_by_class}
    seconds = time_in_turns({name: with_threads(1, partial(arm, plan)) for name, arm in batches.items()}, NUM_ROUNDS)
    few_arms = {
        "ours, few": with_threads(1, partial(ours, few)),
        "one by one, 1 thread": with_threads(1, partial(one_by_one, few)),
        "one by one, 2 threads": with_threads(2, partial(one_by_one, few)),
    }
    seconds |= time_in_turns(few_arms, NUM_ROUNDS_ONE_BY_ONE)
    embeddings = embedding_arms(plan)
    torch.set_num_threads(1)
    embedding_seconds = time_in_turns(embeddings, NUM_ROUNDS)
    host = {size: [host_fraction(plan, size, 16) for _ in range(NUM_ROUNDS)] for size in (32, 512)}
    rows = [
        ("ours / bare pipeline on the same batches, nothing stored, time", "ours", "bare pipeline", "at most 1.05"),
        ("class by class in batches of our size, saved by PIL / ours, time", "class by class", "ours", "at least 1"),
        ("one by one, saved by PIL, 1 thread / ours, time", "one by one, 1 thread", "ours, few", "at least 3"),
        (
            "one by one, saved by PIL, 2 threads / ours (1 thread), time",
            "one by one, 2 threads",
            "ours, few",
            "at least 3",
        ),
    ]
    lines = [
        f"`{recipe.name}`, {recipe.num_inference_steps} steps, batches of {EXECUTION.batch_size}; the model is loaded before.",
        f"Each arm makes {plan.num_samples} images in the first two rows, {few.num_samples} in the others. Median (range)",
        f"over {NUM_ROUNDS} and {NUM_ROUNDS_ONE_BY_ONE} rounds, arms in turns; ratios are taken within a round.",
        "",
        "| ratio | measured | required |",
        "|---|---|---|",
        *[f"| {title} | {spread(ratios(seconds[a], seconds[b]))} | {requested} |" for title, a, b, requested in rows],
        *[
            f"| prompts as text / embeddings from the cache, {n} steps, time | "
            f"{spread(ratios(embedding_seconds[f'text, {n} steps'], embedding_seconds[f'cached, {n} steps']))} | |"
            for n in (50, 2)
        ],
        *[
            f"| fraction of the time that is not the model's, which takes {1000 * SECONDS_A_BATCH:.0f} ms per batch of 16 "
            f"images of {size}x{size} | {spread(fractions)} | |"
            for size, fractions in host.items()
        ],
        "",
        "| arm | images/s: median (range) |",
        "|---|---|",
        *[
            f"| {name} | {spread([(few if name in few_arms else plan).num_samples / s for s in times], 1)} |"
            for name, times in seconds.items()
        ],
    ]
    record("generate", "Generating images, compared with the loops that people write", lines)


if __name__ == "__main__":
    main()
