"""Adapters (LoRA): one that is fitted on slanted digits slants images, and it is pinned, recorded and redone."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from builders.cli.main import main
from builders.diffusion.acceleration import denoiser_of
from builders.diffusion.adapters import pin_adapters
from builders.diffusion.sampling import Sampler
from builders.digits_sd import DigitsSD
from builders.engines import diffusion
from builders.engines.base import complete_recipe, pin_model
from builders.errors import UserError
from builders.format.open_clone import open_clone
from builders.planning.plan import Plan
from builders.recipes.adapters import parse_adapter
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe, recipe_from_dict
from tests.fit_lora import fit_lora, slanted_digits, slants
from tests.in_process import call
from tests.tiny_families import TINY, write_tiny_family

LICENSE, USES_REAL = "cc0-1.0", "slanted digits"
WITH_ADAPTERS = sorted(set(TINY) - {"PixArt-Sigma"})
FAST = ("Stable Diffusion 1.x", "Flux dev")


@pytest.fixture(scope="module")
def slant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an adapter of the embedded model, fitted on the most slanted fifth of the training digits."""
    metadata = {"modelspec.license": LICENSE, "uses_real": USES_REAL}
    return fit_lora(
        tmp_path_factory.mktemp("lora") / "slant.safetensors", *slanted_digits(), num_steps=50, metadata=metadata
    )


def write_random_lora(folder: Path, kind: Any, recipe: Recipe) -> str:
    """Saves a LoRA with random weights for the attention of a family's denoiser; returns its folder."""
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    sampler = diffusion.load(recipe, Execution(batch_size=1))
    assert isinstance(sampler, Sampler)
    pipeline, denoiser = sampler.pipeline, denoiser_of(sampler.pipeline)
    torch.manual_seed(0)
    denoiser.add_adapter(
        LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False), adapter_name="random"
    )
    name = "unet_lora_layers" if hasattr(pipeline, "unet") else "transformer_lora_layers"
    weights = {key: 2 * value for key, value in get_peft_model_state_dict(denoiser, adapter_name="random").items()}
    pipeline.save_lora_weights(folder, **{name: weights})
    denoiser.delete_adapters("random")
    return str(folder)


def images_of(recipe: Recipe, num_images: int = 2) -> NDArray[np.uint8]:
    """Returns the first images (n, height, width, 3) of a recipe."""
    size = 1 if (diffusion.max_batch_size(recipe) == 1) else num_images
    sampler = diffusion.load(recipe, Execution(batch_size=size))
    samples = Plan(recipe, 6).shard_samples(0)[:num_images]
    return np.stack(
        [
            np.asarray(one.image)
            for start in range(0, num_images, size)
            for one in sampler(samples[start : start + size])
        ]
    )


@pytest.fixture(scope="module")
def slanted(slant: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "slanted"
    arguments = ("--images-per-class", 10, "--adapter", slant)
    ended = call(main, "make", "digits_sd/c_cfg2", out, *arguments)
    assert ended.returncode == 0, ended.stderr
    return out


def test_adapter__images_change_in_the_direction_that_it_was_fitted_on(slant: Path) -> None:
    found = {}
    for weight in ("none", 0, 0.5, 1):
        adapters = () if weight == "none" else (f"{slant}={weight}",)
        builder = DigitsSD(config_name="c_cfg2", images_per_class=5, adapters=adapters)
        generate = diffusion.load(builder.plan.recipe, builder.execution)
        found[weight] = np.stack([np.asarray(one.image) for one in generate(builder.plan.shard_samples(0))])
    assert (found[0] == found["none"]).all()
    means = {weight: slants(images.mean(axis=3)).mean() for weight, images in found.items()}
    goal = slants(slanted_digits()[0].mean(axis=3)).mean()
    assert means[0] + 0.02 < means[0.5] < means[1] < goal
    assert means[1] > (means[0] + goal) / 2


def test_adapter__recipe_json_and_card_name_it(slant: Path, slanted: Path) -> None:
    recipe = json.loads((slanted / "clone.json").read_text())["recipe"]
    (name,) = recipe["adapters"]
    adapter = parse_adapter(name)
    assert (adapter.id, adapter.weight) == ("slant.safetensors", 1) and adapter.revision.startswith("sha256:")
    assert recipe["adapter_licenses"] == [LICENSE]
    assert recipe["uses_real"] == f"the digits of scikit-learn, training part; {USES_REAL}"
    assert {fields["adapters"] for fields in open_clone(slanted).metadata(0).to_pylist()} == {name}
    card = (slanted / "README.md").read_text()
    assert f"| adapter | `{name}`, license {LICENSE} |" in card and f"training part; {USES_REAL} |" in card
    assert str(slant.parent) not in (slanted / "clone.json").read_text() + card


def test_adapter__verify_redo_and_gallery_work(slant: Path, slanted: Path, tmp_path: Path) -> None:
    assert call(main, "verify", slanted, "--deep", "--workers", 1).returncode == 0
    key = open_clone(slanted).key(7)
    assert call(main, "redo", slanted, key, "--adapter", slant).stdout == f"{key}: identical\n"
    assert call(main, "redo", slanted, key).stderr.endswith("was read from a file; give --adapter that file\n")
    other = call(main, "redo", slanted, key, "--adapter", f"{slant}=0.5")
    assert other.returncode == 2 and "the image was made with slant.safetensors@sha256:" in other.stderr
    assert call(main, "gallery", slanted, "-o", tmp_path / "site").returncode == 0
    assert "slant.safetensors@sha256:" in "".join(
        path.read_text() for path in (tmp_path / "site").rglob("*") if path.suffix in (".js", ".json", ".html")
    )


def test_adapter__a_clone_grows_with_the_same_file(slant: Path, slanted: Path, tmp_path: Path) -> None:
    before = open_clone(slanted).manifest
    planned = call(main, "plan", slanted / "clone.json", "--images-per-class", 12, "--adapter", slant)
    assert planned.returncode == 0 and f"adapter {before.recipe['adapters'][0]}" not in planned.stderr
    recipe = recipe_from_dict(before.recipe)
    assert recipe.hash == before.recipe_hash
    assert pin_adapters(replace(recipe, adapters=(str(slant),), adapter_licenses=())).hash == before.recipe_hash


def test_adapter__a_link_keeps_its_own_name_and_its_statement_stands_once(slant: Path, tmp_path: Path) -> None:
    blob = tmp_path / "0123abc"
    blob.write_bytes(slant.read_bytes())
    link = tmp_path / "linked.safetensors"
    link.symlink_to(blob)
    pinned = pin_model(replace(DigitsSD.recipe("c_cfg2"), adapters=(str(link),)))
    assert pinned.adapters[0].startswith("linked.safetensors@sha256:")
    again = pin_model(replace(pinned, adapters=(str(link),), adapter_licenses=()))
    assert again.uses_real == pinned.uses_real == f"the digits of scikit-learn, training part; {USES_REAL}"


def test_adapter__another_file_or_weight_is_another_recipe(slant: Path, tmp_path: Path) -> None:
    other = tmp_path / "slant.safetensors"
    other.write_bytes(slant.read_bytes()[:-4] + bytes(4))
    names = [(), (str(slant),), (f"{slant}=0.5",), (str(other),), (str(slant), f"{other}=0.1")]
    base = DigitsSD.recipe("c_cfg2")
    assert len({pin_model(replace(base, adapters=adapters)).hash for adapters in names}) == len(names)
    assert (
        pin_model(replace(base, adapters=(f"{slant}=1.0",))).hash
        == pin_model(replace(base, adapters=(str(slant),))).hash
    )


@pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(name, marks=pytest.mark.long) for name in WITH_ADAPTERS if name not in FAST)]
)
def test_adapter__each_family_loads_one_and_a_weight_of_zero_changes_nothing(
    name: str, recipe: Recipe, tmp_path: Path
) -> None:
    folder = write_tiny_family(name, tmp_path / "tiny")
    named = replace(recipe, model=str(folder), scheduler="", safety="off", num_inference_steps=2)
    named = complete_recipe(
        replace(named, model="any"), {"model": str(folder), "width": 32, "height": 32, "dtype": "float32"}
    )
    base = pin_model(replace(named, num_inference_steps=2))
    lora = write_random_lora(tmp_path / "lora", name, base)
    with_lora = [pin_model(replace(base, adapters=(f"{lora}={weight}",))) for weight in (0, 1)]
    plain, zero, one = (images_of(each) for each in (base, *with_lora))
    assert (plain == zero).all() and (plain != one).any()
    two = pin_model(replace(base, adapters=(f"{lora}=0.5",)))
    assert (images_of(two) != one).any()


def test_adapter__a_first_step_of_the_base_model(slant: Path) -> None:
    base = pin_model(DigitsSD.recipe("c_cfg2"))
    adapted = pin_model(replace(base, adapters=(str(slant),)))
    latents: dict[str, list[torch.Tensor]] = {}

    def watch(name: str, recipe: Recipe) -> None:
        sampler = diffusion.load(recipe, Execution(batch_size=2))
        assert isinstance(sampler, Sampler)
        inputs = latents[name] = []
        handle = sampler.pipeline.unet.register_forward_pre_hook(
            lambda module, arguments: inputs.append(arguments[0].clone())
        )
        sampler(Plan(recipe, 6).shard_samples(0)[:2])
        handle.remove()

    for name, recipe in (
        ("base", base),
        ("adapted", adapted),
        ("first", replace(adapted, first_step="base")),
        ("again", adapted),
    ):
        watch(name, recipe)
    assert all(len(inputs) == 4 for inputs in latents.values())
    # The second pass begins where the base model's first step ended, and the adapter acts from there.
    assert torch.equal(latents["first"][1], latents["base"][1]) and not torch.equal(
        latents["first"][1], latents["adapted"][1]
    )
    assert not torch.equal(latents["first"][2], latents["base"][2])
    assert all(torch.equal(a, b) for a, b in zip(latents["adapted"], latents["again"], strict=True))


def test_adapter__names_are_written_in_one_way() -> None:
    for text, written in (("a/b", "a/b=1"), ("a/b@main=0.80", "a/b@main=0.8"), ("x=y.safetensors", "x=y.safetensors=1"),
                          ("a/b=-1e-3", "a/b=-0.001"), ("a/b=-0", "a/b=0")):  # fmt: skip
        assert str(parse_adapter(text)) == written == str(parse_adapter(written))
    for wrong in ("", "=1", "a/b=nan", "@main"):
        with pytest.raises(UserError, match="but must be ID, ID@REVISION or either with =WEIGHT"):
            parse_adapter(wrong)


def test_adapter__users_mistakes_are_one_sentence(slant: Path, tmp_path: Path) -> None:
    folder, text = tmp_path / "two", tmp_path / "text.safetensors"
    folder.mkdir()
    for name in "ab":
        (folder / f"{name}.safetensors").write_bytes(slant.read_bytes())
    text.write_text("no weights")
    tiny = write_tiny_family("PixArt-Sigma", tmp_path / "tiny")
    cases = [
        (("--adapter", tmp_path / "none.safetensors"), "there is no adapter '"),
        (("--adapter", folder), "holds 2 of them; give --adapter"),
        (("--adapter", text), "is no .safetensors file"),
        (("--adapter", f"{slant}@sha256:00"), "was given; give that file, or leave @… out"),
        (("--adapter", slant, "--adapter", f"{slant}=1.0"), "is given twice"),
        (("--first-step", "base"), "changes nothing without an adapter; give --adapter too"),
        (("--first-step", "base", "--adapter", slant, "--num-inference-steps", 1), "give 2 steps or more"),
        (("--first-step", "lora", "--adapter", slant), "unknown first_step 'lora'; give base, or leave it out"),
        (("--adapter", slant, "--model", tiny), "is not possible with PixArt-Sigma, whose pipeline loads none; leave it out"),
    ]  # fmt: skip
    for arguments, sentence in cases:
        ended = call(main, "make", "digits_sd/c_cfg2", tmp_path / "out", *arguments)
        assert ended.returncode == 2 and sentence in ended.stderr and "Traceback" not in ended.stderr, ended
        assert len(ended.stderr.strip().splitlines()) == 1 and not (tmp_path / "out").exists()


def test_adapter__one_that_does_not_fit_is_refused(slant: Path, generated: Recipe) -> None:
    recipe = pin_model(replace(generated, adapters=(str(slant),)))
    with pytest.raises(UserError, match=r"slant.safetensors@sha256:.* give one that was fitted on this kind of model"):
        diffusion.load(recipe, Execution(batch_size=1))
