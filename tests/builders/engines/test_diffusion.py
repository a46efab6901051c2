import gc
import io
import logging
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builders.diffusion import loading, process
from builders.diffusion.loading import load_pipeline
from builders.diffusion.sampling import find_broken
from builders.diffusion.vae import safe_decode
from builders.engines import diffusion
from builders.engines.base import GeneratedImage, pin_model
from builders.errors import UserError
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
from builders.recipes.sample import Sample
from tests.conftest import EXECUTION
from tests.tiny_families import write_tiny_family
from tests.tiny_pipeline import overflowing_vae, scale_vae


def generate(recipe: Recipe, samples: list[Sample], execution: Execution = EXECUTION) -> list[GeneratedImage]:
    return diffusion.load(recipe, execution)(samples)


def pixels(recipe: Recipe, samples: list[Sample], execution: Execution = EXECUTION) -> list[bytes]:
    return [np.asarray(made.image).tobytes() for made in generate(recipe, samples, execution)]


@pytest.fixture
def samples(generated: Recipe) -> list[Sample]:
    return Plan(generated, 6).shard_samples(0)[:4]


def test_diffusion__images_have_the_size_of_the_recipe(generated: Recipe, samples: list[Sample]) -> None:
    found = generate(replace(generated, width=24), samples)
    assert [np.shape(p.image) for p in found] == [(16, 24, 3)] * 4
    assert all(p.nsfw == -1 for p in found)


def test_diffusion__bytes_depend_neither_on_neighbors_nor_on_the_slot(generated: Recipe, samples: list[Sample]) -> None:
    together = pixels(generated, samples)
    assert pixels(generated, samples[::-1]) == together[::-1]
    assert pixels(generated, samples[2:3]) == together[2:3]
    assert len(set(together)) == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"guidance_scale": 1.0},
        {"num_inference_steps": 3},
        {"negative_prompt": "number"},
        {"scheduler": "DDIMScheduler"},
    ],
)
def test_diffusion__settings_reach_the_pipeline(
    generated: Recipe, samples: list[Sample], changes: dict[str, object]
) -> None:
    changed = replace(generated, **changes)  # type: ignore[arg-type]
    assert pixels(changed, samples) != pixels(generated, samples)


def test_diffusion__prompt_and_seed_each_change_the_image(generated: Recipe, samples: list[Sample]) -> None:
    sample = samples[0]
    variants = [sample, replace(sample, seed=1), replace(sample, prompt="three")]
    assert len(set(pixels(generated, variants))) == 3


def test_diffusion__without_guidance_no_unconditional_pass_runs(generated: Recipe, samples: list[Sample]) -> None:
    sizes = []
    recipe = replace(generated, guidance_scale=1.0)
    pipeline = load_pipeline(recipe, EXECUTION)
    hook = pipeline.unet.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    pixels(recipe, samples)
    hook.remove()
    assert set(sizes) == {4}


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"scheduler": "NoScheduler"}, "unknown scheduler 'NoScheduler'"), ({"model_dir": "/"}, "cannot be")],
)
def test_diffusion__mistakes_are_reported(generated: Recipe, changes: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_pipeline(replace(generated, **changes), EXECUTION)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("family", "width"),
    [("Stable Diffusion 1.x", 20), ("Stable Diffusion XL", 20), ("Stable Diffusion 3.x", 18), ("Flux dev", 18)],
)
def test_diffusion__sizes_that_a_model_does_not_support_are_reported(
    recipe: Recipe, tmp_path: Path, family: str, width: int
) -> None:
    write_tiny_family(family, tmp_path / family)
    pinned = pin_model(replace(recipe, model=str(tmp_path / family), scheduler="", width=width))
    with pytest.raises(UserError, match=str(width)):
        generate(pinned, Plan(pinned, 6).shard_samples(0)[:4])


def test_diffusion__without_guidance_every_family_runs_one_pass(recipe: Recipe, tmp_path: Path) -> None:
    for family in ("Stable Diffusion XL", "Stable Diffusion 3.x"):
        write_tiny_family(family, tmp_path / family)
        sizes: list[int] = []
        pinned = pin_model(replace(recipe, model=str(tmp_path / family), scheduler="", guidance_scale=1.0))
        pipeline = load_pipeline(pinned, EXECUTION)
        denoiser = pipeline.unet if family == "Stable Diffusion XL" else pipeline.transformer
        hook = denoiser.register_forward_pre_hook(
            lambda module, args, kwargs, sizes=sizes: sizes.append(len(args[0] if args else kwargs["hidden_states"])),
            with_kwargs=True,
        )
        pixels(pinned, Plan(pinned, 6).shard_samples(0)[:4])
        hook.remove()
        assert set(sizes) == {4}


def test_diffusion__flagged_images_are_unchanged(recipe: Recipe, checked_pipeline: Path) -> None:
    checked = pin_model(replace(recipe, model=str(checked_pipeline), prompt="one"))
    samples = [sample for shard in range(5) for sample in Plan(checked, 50).shard_samples(shard)][:24]
    batches = [samples[start : start + 8] for start in (0, 8, 16)]
    found = [p for batch in batches for p in generate(checked, batch, Execution(batch_size=8))]
    assert {p.nsfw for p in found} == {0, 1}
    off = replace(checked, safety="off")
    plain = [p for batch in batches for p in pixels(off, batch, Execution(batch_size=8))]
    assert [np.asarray(p.image).tobytes() for p in found] == plain


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_diffusion__every_image_of_a_broken_model_is_marked_broken(
    generated: Recipe, tiny_pipeline: Path, tmp_path: Path, dtype: str
) -> None:
    scale_vae(tiny_pipeline, tmp_path / "broken", "decoder.conv_out.bias", float("nan"))
    broken = pin_model(replace(generated, model=str(tmp_path / "broken"), model_dir="", revision="", dtype=dtype))
    found = generate(broken, Plan(broken, 6).shard_samples(0)[:3])
    assert [made.is_broken for made in found] == [True] * 3


@pytest.mark.parametrize(
    "family",
    [
        "Stable Diffusion 1.x",
        *(pytest.param(f"Stable Diffusion {name}", marks=pytest.mark.long) for name in ("XL", "3.x")),
    ],
)
def test_diffusion__latents_that_overflow_the_autoencoder_are_decoded_again_in_32_bits(
    recipe: Recipe, tmp_path: Path, family: str
) -> None:
    write_tiny_family(family, tmp_path / family)
    overflowing_vae(tmp_path / family, tmp_path / "large")
    whole = pin_model(replace(recipe, model=str(tmp_path / "large"), scheduler=""))
    half = replace(whole, dtype="float16")
    samples = Plan(whole, 6).shard_samples(0)[:4]
    found = generate(half, samples)
    assert [(made.vae_dtype, made.is_broken) for made in found] == [("float32", False)] * 4
    # The denoiser stays in 16 bits, so the images are only close to those in 32 bits.
    exact = np.array([made.image for made in generate(whole, samples)], dtype=int)
    assert np.abs(np.array([made.image for made in found], dtype=int) - exact).mean() < 3
    alone = [np.asarray(generate(half, [sample])[0].image).tobytes() for sample in samples]
    assert alone == [np.asarray(made.image).tobytes() for made in found]
    modules = load_pipeline(half, EXECUTION)
    assert modules.vae.dtype == torch.float16 and next(modules.text_encoder.parameters()).dtype == torch.float16


def test_diffusion__neighbors_of_an_overflow_keep_their_bytes(generated: Recipe, samples: list[Sample]) -> None:
    """Lets one of four decoded images overflow; the other three must keep their bytes."""
    half = replace(generated, dtype="float16")
    plain = pixels(half, samples)
    decode = safe_decode(load_pipeline(half, EXECUTION))
    assert decode is not None
    original = decode.decode

    def overflow(latents: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        found = original(latents, *arguments, **options)
        if len(latents) == 4:
            found[0][2] = float("inf")
        return found

    decode.decode = overflow
    try:
        found = generate(half, samples)
    finally:
        decode.decode = original
    assert [made.vae_dtype for made in found] == ["float16", "float16", "float32", "float16"]
    assert [np.asarray(found[slot].image).tobytes() for slot in (0, 1, 3)] == [plain[slot] for slot in (0, 1, 3)]
    close = np.frombuffer(plain[2], np.uint8).astype(int)
    assert np.abs(np.asarray(found[2].image, dtype=int).ravel() - close).max() <= 2


def test_diffusion__memory_never_holds_two_models(generated: Recipe, checked_pipeline: Path) -> None:
    first = weakref.ref(load_pipeline(generated, EXECUTION).unet)
    other = pin_model(replace(generated, model=str(checked_pipeline), model_dir="", revision=""))
    seen: list[bool] = []
    load_modules = loading._load_modules

    def spy(*key: Any) -> Any:
        gc.collect()
        seen.append(first() is None)
        return load_modules(*key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "_load_modules", spy)
        load_pipeline(other, EXECUTION)
    assert seen == [True]


def test_diffusion__long_prompts_and_flagged_images_do_not_fill_the_log(
    generated: Recipe, recipe: Recipe, checked_pipeline: Path, samples: list[Sample]
) -> None:
    """`plan` says once which prompts are cut, and no image is blackened; the libraries would say so in every batch."""
    import diffusers

    logger, shown = logging.getLogger("diffusers"), io.StringIO()
    handler = logging.StreamHandler(shown)
    logger.addHandler(handler)
    try:
        pixels(replace(generated, negative_prompt="one " * 100), [replace(samples[0], prompt="one " * 100)])
        checked = pin_model(replace(recipe, model=str(checked_pipeline)))
        seeds = [replace(samples[0], seed=seed) for seed in range(100)]
        assert sum(image.nsfw for image in generate(checked, seeds[:40], Execution(batch_size=40))) > 0
        assert shown.getvalue() == ""
        diffusers.utils.logging.get_logger("diffusers.x").warning("another warning")
        assert "another warning" in shown.getvalue() and handler.filters == []
    finally:
        logger.removeHandler(handler)


def test_diffusion__the_environment_names_what_pixels_depend_on(generated: Recipe) -> None:
    found = diffusion.load(generated, EXECUTION).environment
    assert found.keys() >= {*diffusion.PACKAGES, "fakeit", "device", "attention"}
    assert found["attention"] == "AttnProcessor2_0 (default)"


def test_diffusion__mps_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert process.device().type == "cpu" or torch.cuda.is_available()


def test_diffusion__broken_images_are_distinguished_from_whole_ones() -> None:
    images = np.random.default_rng(0).random((5, 4, 6, 3))
    images[1] = 0.0  # black
    images[2] = (0.1, 0.5, 0.9)  # one flat color
    images[3, 2, 2, 1] = np.nan
    levels = (np.nan_to_num(images) * 255).round().astype(np.uint8)
    assert find_broken(images, levels) == {1, 2, 3}


@pytest.mark.long
def test_diffusion__a_compiled_model_generates_the_same_up_to_last_bits(
    generated: Recipe, samples: list[Sample]
) -> None:
    compiled = np.array([p.image for p in generate(generated, samples, replace(EXECUTION, compile=True))], dtype=int)
    plain = np.array([p.image for p in generate(generated, samples)], dtype=int)
    assert np.abs(compiled - plain).max() <= 2


@pytest.mark.long
def test_diffusion__out_of_memory_is_reported_with_a_batch_size(tiny_pipeline: Path) -> None:
    script = """
import resource, sys
from builders.classes.class_list import ClassEntry
from builders.engines import diffusion
from builders.recipes.execution import Execution
from builders.engines.base import pin_model
from builders.planning.plan import Plan
from builders.recipes.recipe import Recipe
recipe = pin_model(Recipe(name="t", classes=(ClassEntry(wnid="a", name="one"),), model=sys.argv[1],
                          width=1024, height=1024, num_inference_steps=1))
generate = diffusion.load(recipe, Execution(batch_size=16))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 400_000_000,) * 2)
try:
    generate(Plan(recipe, 16).shard_samples(0))
except Exception as error:
    print(type(error).__name__, error)
"""
    ended = subprocess.run([sys.executable, "-c", script, str(tiny_pipeline)], capture_output=True, text=True)
    assert ended.stdout.startswith(
        "OutOfMemoryError out of memory with batches of 16 at 1024x1024; try --batch-size 8"
    ), ended
