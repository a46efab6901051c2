"""What only a GPU can show: 16 bits, its memory, compiled models, the checker, and equal runs on one and on two cards."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from builders.diffusion.loading import load_pipeline
from builders.diffusion.process import device
from builders.diffusion.safety_checker import load_check
from builders.engines.base import limit_batch_size, pin_model
from builders.engines.diffusion import load
from builders.errors import OutOfMemoryError
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
from builders.recipes.sample import Sample
from tests.tiny_families import TINY, size, write_tiny_family
from tests.tiny_pipeline import example_images

SIXTEEN_BITS = "float16" if torch.cuda.is_available() else "bfloat16"


def tiny(recipe: Recipe, name: str, folder: Path) -> Recipe:
    write_tiny_family(name, folder)
    chosen = replace(recipe, model=str(folder), scheduler="", dtype=SIXTEEN_BITS, width=size(name), height=size(name))
    return pin_model(replace(chosen, guidance_scale=4.0))


def pixels(recipe: Recipe, samples: list[Sample], execution: Execution) -> list[bytes]:
    execution = limit_batch_size(recipe, execution, is_given=False)
    generate = load(recipe, execution)
    found = []
    for start in range(0, len(samples), execution.batch_size):
        found += generate(samples[start : start + execution.batch_size])
    return [np.asarray(image.image).tobytes() for image in found]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", list(TINY))
def test_gpu__neighbors_change_nothing_in_16_bits(
    recipe: Recipe, tmp_path: Path, name: str, channels_last: bool
) -> None:
    chosen = tiny(recipe, name, tmp_path / "model")
    execution = Execution(batch_size=4, channels_last=channels_last)
    samples = Plan(chosen, 6).shard_samples(0)[:4]
    together = pixels(chosen, samples, execution)
    longer = [*samples[:3], replace(samples[3], prompt="one two three " * 20)]
    assert pixels(chosen, longer, execution)[:3] == together[:3]
    assert pixels(chosen, samples[:2], execution) == together[:2]
    assert load_pipeline(chosen, execution).device.type == device().type


def test_gpu__out_of_memory_names_a_batch_and_a_smaller_one_runs(recipe: Recipe, tmp_path: Path) -> None:
    chosen = replace(tiny(recipe, "Stable Diffusion 1.x", tmp_path / "model"), width=1024, height=1024)
    samples = Plan(chosen, 6).shard_samples(0)[:1]
    _, total = torch.cuda.mem_get_info()
    one = Execution(batch_size=1)
    pixels(chosen, samples, one)
    # Leaves room for one image, and not for a thousand.
    torch.cuda.set_per_process_memory_fraction(min(1.0, 4 * torch.cuda.max_memory_allocated() / total))
    try:
        with pytest.raises(
            OutOfMemoryError, match="out of memory with batches of 1000 at 1024x1024; try --batch-size 500"
        ):
            pixels(chosen, samples, Execution(batch_size=1000))
        torch.cuda.empty_cache()
        assert len(pixels(chosen, samples, one)) == 1
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_gpu__a_compiled_model_generates_close_images(recipe: Recipe, tmp_path: Path) -> None:
    chosen = tiny(recipe, "Stable Diffusion 1.x", tmp_path / "model")
    samples = Plan(chosen, 6).shard_samples(0)[:4]
    plain, compiled = (
        np.array([np.frombuffer(image, np.uint8) for image in pixels(chosen, samples, execution)], dtype=float)
        for execution in (Execution(batch_size=4), Execution(batch_size=4, compile=True))
    )
    error = np.square(plain - compiled).mean(axis=1)
    assert (10 * np.log10(255**2 / np.maximum(error, 1e-9)) >= 35).all()


def test_gpu__the_checker_has_the_verdicts_of_the_cpu(recipe: Recipe, checked_pipeline: Path) -> None:
    pinned = pin_model(replace(recipe, model=str(checked_pipeline)))
    images = example_images(checked_pipeline)
    check = load_check(pinned, Execution())
    script = """
import sys, numpy as np
from dataclasses import replace
from builders.classes.class_list import ClassEntry
from builders.diffusion.safety_checker import load_check
from builders.engines.base import pin_model
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
check = load_check(pin_model(Recipe(name="t", model=sys.argv[1])), Execution())
print(*check(np.load(sys.argv[2])))
"""
    path = checked_pipeline.parent / "images.npy"
    np.save(path, images)
    on_cpu = subprocess.run(
        [sys.executable, "-c", script, str(checked_pipeline), str(path)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert check is not None and check(images) == [int(word) for word in on_cpu.stdout.split()]


def make(out: Path, model: Path, *options: str, cards: str | None = None) -> dict[str, bytes]:
    """Makes a clone in processes of their own; returns the content of its shards by name."""
    environment = {**os.environ, **({"CUDA_VISIBLE_DEVICES": cards} if cards is not None else {})}
    subprocess.run(
        [
            sys.executable, "-m", "builders", "make", "digits_sd/c_cfg2", str(out), "--model", str(model),
            "--num-inference-steps", "4", "--dtype", SIXTEEN_BITS, "--images-per-class", "8", "--shard-size", "20", *options,
        ],
        env=environment, check=True, capture_output=True,
    )  # fmt: skip
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*.tar"))}


def test_gpu__two_equal_runs_give_the_same_bytes(tmp_path: Path) -> None:
    model = write_tiny_family("Stable Diffusion 1.x", tmp_path / "model")
    first, second = (make(tmp_path / name, model) for name in ("first", "second"))
    assert first == second and len(first) == 4


def test_gpu__two_workers_on_two_cards_give_the_bytes_of_one(tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("this machine has one card")
    model = write_tiny_family("Stable Diffusion 1.x", tmp_path / "model")
    assert make(tmp_path / "two", model, cards="0,1") == make(tmp_path / "one", model, cards="0")
