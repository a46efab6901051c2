import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from builders.format.errors import UserError
from builders.making.engines import diffusion
from builders.making.models import pin_model
from builders.making.pipelines.loading import load_pipeline
from builders.making.plan import Plan, Sample
from builders.making.recipe import Recipe
from tests.tiny_pipeline import FAMILIES, write_tiny_pipeline


def pixels(recipe: Recipe, samples: list[Sample]) -> list[bytes]:
    return [np.asarray(painted.picture).tobytes() for painted in diffusion.load(recipe)(samples)]


@pytest.fixture
def samples(painted: Recipe) -> list[Sample]:
    return Plan(painted, 6).shard_samples(0)[:4]


def test_diffusion__pictures_have_the_recipes_size(painted: Recipe, samples: list[Sample]) -> None:
    found = diffusion.load(replace(painted, width=24))(samples)
    assert [np.shape(p.picture) for p in found] == [(16, 24, 3)] * 4
    assert all(p.nsfw == -1 for p in found)


def test_diffusion__bytes_depend_neither_on_neighbours_nor_on_the_slot(painted: Recipe, samples: list[Sample]) -> None:
    together = pixels(painted, samples)
    assert pixels(painted, samples[::-1]) == together[::-1]
    assert pixels(painted, samples[2:3]) == together[2:3]
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
    painted: Recipe, samples: list[Sample], changes: dict[str, object]
) -> None:
    changed = replace(painted, **changes)  # type: ignore[arg-type]
    assert pixels(changed, samples) != pixels(painted, samples)


def test_diffusion__prompt_and_seed_each_make_another_picture(painted: Recipe, samples: list[Sample]) -> None:
    sample = samples[0]
    variants = [sample, replace(sample, seed=1), replace(sample, prompt="three")]
    assert len(set(pixels(painted, variants))) == 3


def test_diffusion__without_guidance_no_unconditional_pass_is_run(painted: Recipe, samples: list[Sample]) -> None:
    sizes = []
    recipe = replace(painted, guidance_scale=1.0)
    pipeline = load_pipeline(recipe)
    hook = pipeline.unet.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    pixels(recipe, samples)
    hook.remove()
    assert set(sizes) == {4}


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"scheduler": "NoScheduler"}, "unknown scheduler 'NoScheduler'"), ({"model_dir": "/"}, "cannot be")],
)
def test_diffusion__mistakes_are_told(painted: Recipe, changes: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_pipeline(replace(painted, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("family", FAMILIES)
def test_diffusion__every_family_paints_and_neighbours_do_not_matter(
    recipe: Recipe, tmp_path: Path, family: str
) -> None:
    write_tiny_pipeline(tmp_path / family, family)
    pinned = pin_model(replace(recipe, model=str(tmp_path / family), scheduler=""))
    samples = Plan(pinned, 6).shard_samples(0)[:4]
    together = pixels(pinned, samples)
    assert len(set(together)) == 4
    assert pixels(pinned, samples[::-1]) == together[::-1]
    assert pixels(pinned, samples[2:3]) == together[2:3]
    assert (
        pixels(replace(pinned, prompt="one", seed=1), Plan(replace(pinned, seed=1), 6).shard_samples(0)[:4]) != together
    )


@pytest.mark.parametrize(("family", "width"), [("sd", 20), ("sdxl", 20), ("sd3", 18), ("flux", 18)])
def test_diffusion__sizes_that_a_model_cannot_make_are_told(
    recipe: Recipe, tmp_path: Path, family: str, width: int
) -> None:
    write_tiny_pipeline(tmp_path / family, family)
    pinned = pin_model(replace(recipe, model=str(tmp_path / family), scheduler="", width=width))
    with pytest.raises(UserError, match=str(width)):
        diffusion.load(pinned)(Plan(pinned, 6).shard_samples(0)[:4])


def test_diffusion__guidance_off_runs_one_pass_in_every_family_that_guides(recipe: Recipe, tmp_path: Path) -> None:
    for family in ("sdxl", "sd3"):
        write_tiny_pipeline(tmp_path / family, family)
        sizes: list[int] = []
        pinned = pin_model(replace(recipe, model=str(tmp_path / family), scheduler="", guidance_scale=1.0))
        pipeline = load_pipeline(pinned)
        denoiser = pipeline.unet if family == "sdxl" else pipeline.transformer
        hook = denoiser.register_forward_pre_hook(
            lambda module, args, kwargs, sizes=sizes: sizes.append(len(args[0] if args else kwargs["hidden_states"])),
            with_kwargs=True,
        )
        pixels(pinned, Plan(pinned, 6).shard_samples(0)[:4])
        hook.remove()
        assert set(sizes) == {4}


def test_diffusion__flagged_pictures_are_kept_as_they_are(recipe: Recipe, checked_pipeline: Path) -> None:
    checked = pin_model(replace(recipe, model=str(checked_pipeline), prompt="one", batch_size=8))
    samples = [sample for shard in range(5) for sample in Plan(checked, 50).shard_samples(shard)][:24]
    found = [p for start in (0, 8, 16) for p in diffusion.load(checked)(samples[start : start + 8])]
    assert {p.nsfw for p in found} == {0, 1}
    plain = [p for start in (0, 8, 16) for p in pixels(replace(checked, safety="off"), samples[start : start + 8])]
    assert [np.asarray(p.picture).tobytes() for p in found] == plain


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_diffusion__a_model_that_overflows_fails_with_the_keys(
    painted: Recipe, tiny_pipeline: Path, tmp_path: Path, dtype: str
) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny_pipeline, tmp_path / "broken")
    path = tmp_path / "broken/vae/diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["decoder.conv_out.bias"] *= float("nan")
    save_file(weights, path, metadata={"format": "pt"})
    broken = pin_model(replace(painted, model=str(tmp_path / "broken"), model_dir="", revision="", dtype=dtype))
    with pytest.raises(UserError, match=r"n0\d_00000000, .* came out broken"):
        diffusion.load(broken)(Plan(broken, 6).shard_samples(0)[:4])


def test_diffusion__an_overflow_in_16_bits_is_made_again_in_32(
    painted: Recipe, tiny_pipeline: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny_pipeline, tmp_path / "large")
    path = tmp_path / "large/vae/diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["decoder.conv_in.weight"] *= 3e5  # more than float16 holds; the group norms after it take the factor out
    save_file(weights, path, metadata={"format": "pt"})
    whole = pin_model(replace(painted, model=str(tmp_path / "large"), model_dir="", revision=""))
    samples = Plan(whole, 6).shard_samples(0)[:4]
    found = diffusion.load(replace(whole, dtype="float16"))(samples)
    assert {p.dtype for p in found} == {"float32"}
    alone = replace(whole, batch_size=1)
    assert [np.asarray(p.picture).tobytes() for p in found] == [pixels(alone, [sample])[0] for sample in samples]


def test_diffusion__the_32_bit_model_is_not_kept(
    painted: Recipe, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    find_broken = diffusion.find_broken
    shapes: list[int] = []

    def first_is_broken(pictures: NDArray[Any], levels: NDArray[Any]) -> set[int]:
        shapes.append(len(pictures))
        return {0} if len(shapes) == 1 else find_broken(pictures, levels)

    monkeypatch.setattr(diffusion, "find_broken", first_is_broken)
    half = replace(painted, dtype="float16")
    paint = diffusion.load(half)
    kept = load_pipeline(half)
    assert [p.dtype for p in paint(samples[:4])] == ["float32", "float16", "float16", "float16"]
    assert shapes == [painted.batch_size, 1] and load_pipeline(half) is kept
    assert {str(module.dtype) for module in (kept.unet, kept.vae, kept.text_encoder)} == {"torch.float16"}


def test_diffusion__broken_pictures_are_told_from_whole_ones() -> None:
    pictures = np.random.default_rng(0).random((5, 4, 6, 3))
    pictures[1] = 0.0  # the black square
    pictures[2] = (0.1, 0.5, 0.9)  # one flat colour
    pictures[3, 2, 2, 1] = np.nan
    levels = (np.nan_to_num(pictures) * 255).round().astype(np.uint8)
    assert diffusion.find_broken(pictures, levels) == {1, 2, 3}


@pytest.mark.long
def test_diffusion__compiled_it_paints_the_same_but_for_last_bits(painted: Recipe, samples: list[Sample]) -> None:
    compiled = np.array([p.picture for p in diffusion.load(replace(painted, compile=True))(samples)], dtype=int)
    plain = np.array([p.picture for p in diffusion.load(painted)(samples)], dtype=int)
    assert np.abs(compiled - plain).max() <= 2


@pytest.mark.long
def test_diffusion__want_of_memory_is_told_with_a_batch_size(tiny_pipeline: Path) -> None:
    script = """
import resource, sys
from builders.classes.class_list import ClassEntry
from builders.making.engines import diffusion
from builders.making.models import pin_model
from builders.making.plan import Plan
from builders.making.recipe import Recipe
from tests.tiny_pipeline import FAMILIES, write_tiny_pipeline
recipe = pin_model(Recipe(name="t", classes=(ClassEntry(wnid="a", name="one"),), model=sys.argv[1], batch_size=16,
                          width=1024, height=1024, num_inference_steps=1))
paint = diffusion.load(recipe)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 400_000_000,) * 2)
try:
    paint(Plan(recipe, 16).shard_samples(0))
except Exception as error:
    print(type(error).__name__, error)
"""
    ended = subprocess.run([sys.executable, "-c", script, str(tiny_pipeline)], capture_output=True, text=True)
    assert ended.stdout.startswith("UserError out of memory with batches of 16 at 1024x1024; try --batch-size 8"), ended
