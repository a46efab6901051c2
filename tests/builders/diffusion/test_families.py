"""Tests every row of the table of families on a tiny pipeline, and its defaults on the configurations of real models."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builders.clone_builder import CloneBuilder
from builders.custom_sd import CustomSD
from builders.diffusion.families import FAMILIES
from builders.diffusion.family import ALWAYS, NEVER
from builders.diffusion.family_defaults import family_of
from builders.engines import diffusion
from builders.engines.base import limit_batch_size, pin_model
from builders.errors import UserError
from builders.format.open_clone import open_clone
from builders.make_clone import make_clone
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
from builders.recipes.sample import Sample
from builders.registry import find_recipe
from builders.verification.regenerate import regenerate
from builders.verification.verify_clone import verify_clone
from builders.viewing.grid import draw_grid
from tests.tiny_families import TINY, as_parameters, size, write_tiny_family

BY_NAME = {family.name: family for family in FAMILIES}
DIFFUSERS_OWN = "Kwargs passed to `processor.__call__`"
"""A warning of transformers about how Flux 2's pipeline in diffusers calls it."""
LONG = "a digit inside a sky number two"
CONFIGS = json.loads((Path(__file__).parent / "real_configs.json").read_text())
"""Configurations of real models by Hub id, written by hand: values that tell families apart, and expected defaults."""


@pytest.fixture(scope="module", params=as_parameters(TINY))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def recipe(recipe: Recipe, request: pytest.FixtureRequest) -> Recipe:
    """Returns the recipe at the size of the tiny pipeline."""
    pixels = size(request.getfixturevalue("name")) if "name" in request.fixturenames else 16
    return replace(recipe, width=pixels, height=pixels)


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_family(name, tmp_path_factory.mktemp("family") / "tiny")


@contextmanager
def no_warnings(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Checks that nothing inside warns, through Python or through the log of diffusers or transformers."""
    import diffusers
    import transformers

    libraries = (diffusers, transformers)
    for library in libraries:
        library.utils.logging.enable_propagation()
    caplog.clear()
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        # torch's own, about the way that diffusers and transformers call it.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        try:
            yield
        finally:
            for library in libraries:
                library.utils.logging.disable_propagation()
    found = [record.getMessage() for record in caplog.records]
    assert [text for text in found if not text.startswith(DIFFUSERS_OWN)] == []


def recipe_of(folder: Path, recipe: Recipe, **changes: Any) -> Recipe:
    """Returns a recipe for a tiny pipeline, with guidance at the family's default unless it is given."""
    chosen = replace(recipe, model=str(folder), scheduler="", name="test/c")
    found = family_of(chosen)
    assert found
    chosen = replace(chosen, guidance_scale=found.family.guidance_scale)
    return pin_model(replace(chosen, **changes))


def generate(recipe: Recipe, samples: list[Sample], batch_size: int = 4) -> list[bytes]:
    execution = limit_batch_size(recipe, Execution(batch_size=batch_size), is_given=False)
    run = diffusion.load(recipe, execution)
    found = [
        image
        for start in range(0, len(samples), execution.batch_size)
        for image in run(samples[start : start + execution.batch_size])
    ]
    assert not any(image.is_broken for image in found)
    return [np.asarray(image.image).tobytes() for image in found]


def samples_of(recipe: Recipe, num_samples: int = 4) -> list[Sample]:
    return Plan(recipe, 6).shard_samples(0)[:num_samples]


def test_families__every_row_has_a_tiny_pipeline_and_is_found(name: str, folder: Path, recipe: Recipe) -> None:
    assert set(TINY) == set(BY_NAME)
    found = family_of(replace(recipe, model=str(folder)))
    # Nothing in its configuration tells Stable Diffusion 3.5 Turbo from the others, so only its Hub id does.
    assert found and found.family.name == ("Stable Diffusion 3.x" if name == "Stable Diffusion 3.5 Turbo" else name)


def test_families__images_are_those_of_the_pipeline_called_as_diffusers_documents(
    name: str, folder: Path, recipe: Recipe
) -> None:
    import diffusers

    chosen = recipe_of(folder, recipe)
    samples = samples_of(chosen, 2)
    stock = diffusers.DiffusionPipeline.from_pretrained(folder)
    stock.set_progress_bar_config(disable=True)
    family = BY_NAME[name]
    guidance = {family.guidance: chosen.guidance_scale, **({"negative_prompt": ""} if name == "Qwen-Image" else {})}
    binning = {"use_resolution_binning": False} if "use_resolution_binning" in family.options else {}
    length = {"max_sequence_length": 256} if name == "Flux schnell" else {}
    expected = [
        stock(
            prompt=sample.prompt, generator=torch.Generator("cpu").manual_seed(sample.seed), num_inference_steps=2,
            width=chosen.width, height=chosen.height, output_type="np", **guidance, **binning, **length,
        ).images[0]
        for sample in samples
    ]  # fmt: skip
    for image, other in zip(generate(chosen, samples), expected, strict=True):
        ours = np.frombuffer(image, np.uint8).reshape(other.shape).astype(int)
        assert np.abs(ours - (other * 255).round().astype(int)).max() <= 1


def test_families__images_depend_on_prompt_and_seed_and_not_on_neighbors(
    folder: Path, recipe: Recipe, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = recipe_of(folder, recipe)
    samples = samples_of(chosen)
    with no_warnings(caplog):
        together = generate(chosen, samples)
    assert len(set(together)) == 4
    longer = [*samples[:3], replace(samples[3], prompt=" ".join([LONG] * 4))]
    changed = generate(chosen, longer)
    assert changed[:3] == together[:3] and changed[3] != together[3]
    # A short last batch, and other slots.
    assert generate(chosen, samples[:3]) == together[:3]
    assert generate(chosen, samples[::-1]) == together[::-1]
    seeds = generate(chosen, [samples[0], replace(samples[0], seed=1)])
    assert seeds[0] == together[0] != seeds[1]


def test_families__guidance_acts_or_is_refused(name: str, folder: Path, recipe: Recipe) -> None:
    named = replace(recipe, model=str(folder), scheduler="", name="test/c_cfg5", guidance_scale=5.0)
    if BY_NAME[name].acts_above > 5:
        with pytest.raises(UserError, match=r"--guidance-scale 5 changes nothing, because .* ignores guidance"):
            diffusion.complete(named, is_other_model=False, given=["guidance_scale"])
        in_force = diffusion.complete(named, is_other_model=False, given=[])
        assert (in_force.guidance_scale, in_force.not_applied) == (1.0, "guidance_scale 5.0")
        return
    first = diffusion.complete(named, is_other_model=False, given=["guidance_scale"])
    images = [generate(pin_model(replace(first, guidance_scale=scale)), samples_of(first, 2)) for scale in (1.0, 5.0)]
    assert images[0][0] != images[1][0] and images[0][1] != images[1][1]


def test_families__a_negative_prompt_acts_or_is_refused(name: str, folder: Path, recipe: Recipe) -> None:
    family = BY_NAME[name]
    scales = {"true_cfg_scale": 4.0} if family.negative_prompt == "true_cfg_scale" else {"guidance_scale": 5.0}
    if family.negative_prompt == "no":
        scales = {}
    chosen = recipe_of(folder, recipe, **scales)
    negative = replace(chosen, negative_prompt="sky number")
    if family.negative_prompt == "no":
        with pytest.raises(UserError, match=f"{name} takes no negative prompt; leave --negative-prompt out"):
            diffusion.complete(negative, is_other_model=False, given=["negative_prompt"])
        return
    samples = samples_of(chosen, 2)
    assert diffusion.complete(negative, is_other_model=False, given=["negative_prompt"]) == negative
    plain, acted = generate(chosen, samples), generate(negative, samples)
    assert plain[0] != acted[0] and plain[1] != acted[1]
    off = replace(negative, **dict.fromkeys(scales, 0.0))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="--negative-prompt acts only with --"):
        diffusion.complete(off, is_other_model=False, given=["negative_prompt"])


def test_families__a_clone_is_verified_and_made_again(
    name: str, folder: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model's family decides what the named recipe of another model leaves open, and the json says what was done."""
    monkeypatch.setattr(CustomSD, "classes", classmethod(lambda cls, options: recipe.classes))
    chosen = pin_model(CustomSD.recipe("c_cfg2", model=str(folder), num_inference_steps=2, dtype="float32"))
    family = family_of(chosen).family  # type: ignore[union-attr]
    assert (chosen.width, chosen.height) == (_config(folder).get("sample_size", family.size),) * 2
    chosen = replace(chosen, width=size(name), height=size(name), shard_size=6)
    execution = limit_batch_size(chosen, Execution(batch_size=4), is_given=False)
    assert execution.batch_size == (family.max_batch_size or 4)
    assert make_clone(Plan(chosen, 3), str(tmp_path), execution=execution) is not None
    assert list(verify_clone(str(tmp_path), deep=True, num_workers=1)) == []
    clone = open_clone(str(tmp_path))
    fields = clone.metadata(0).to_pylist()[0]
    assert fields["guidance_scale"] == (1.0 if family.acts_above > 2 else 2.0)
    assert fields["num_inference_steps"] == 2 and fields["dtype"] == "float32"
    assert fields["scheduler"] == json.loads((folder / "scheduler/scheduler_config.json").read_text())["_class_name"]
    assert regenerate(clone, clone[1].key, str(folder)).is_identical
    written = json.loads((tmp_path / "clone.json").read_text())["recipe"]
    card = (tmp_path / "README.md").read_text()
    assert (written.get("not_applied") == "guidance_scale 2.0") == (family.acts_above > 2)
    assert ("| not applied | guidance_scale 2.0, which" in card) == (family.acts_above > 2)


@pytest.mark.parametrize("model", CONFIGS)
def test_families__real_configurations_give_their_defaults(model: str, tmp_path: Path, recipe: Recipe) -> None:
    real = CONFIGS[model]
    for path, fields in real["files"].items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(json.dumps(fields))
    by_config = family_of(replace(recipe, model=str(tmp_path)))
    by_id = family_of(replace(recipe, model=model))
    assert by_config and by_id
    assert by_id.family.name == real["family"]
    assert by_config.family.name == real.get("family_by_config", real["family"])
    expected = real["defaults"]
    for where in (str(tmp_path), model) if "family_by_config" not in real else (model,):
        named = replace(recipe, name="test/c", model=where, scheduler="")
        found = diffusion.complete(named, is_other_model=True, given=[])
        assert {key: getattr(found, key) for key in expected} == expected
    pinned = pin_model(replace(recipe, model=str(tmp_path), scheduler=""))
    assert pinned.scheduler == real["files"]["scheduler/scheduler_config.json"]["_class_name"]


def test_families__every_row_has_a_real_configuration() -> None:
    assert {real["family"] for real in CONFIGS.values()} == set(BY_NAME)


def test_families__what_the_user_gives_counts_and_plan_says_the_rest(tmp_path: Path, recipe: Recipe) -> None:
    real = CONFIGS["stabilityai/stable-diffusion-xl-base-1.0"]
    for path, fields in real["files"].items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(json.dumps(fields))
    builder: type[CloneBuilder] = type("Named", (CloneBuilder,), {"RECIPES": {"c_cfg2": recipe}, "__module__": "named"})
    found = builder.recipe("c_cfg2", model=str(tmp_path), width=512, guidance_scale=None)
    assert (found.width, found.height, found.num_inference_steps, found.dtype) == (512, 1024, 50, "float16")
    assert found.guidance_scale == recipe.guidance_scale
    lines = diffusion.notes(found)
    assert (
        "Stable Diffusion XL, found by its class StableDiffusionXLPipeline alone, whose defaults it takes" in lines[0]
    )
    assert "512x1024, 50 steps of the model's own scheduler, guidance 7.5, float16" in lines[1]


def _config(folder: Path) -> dict[str, Any]:
    from builders.diffusion.model_config import read_model_config

    return dict(read_model_config(Recipe(name="x/y", model=str(folder))) or {})


def test_families__the_recipe_of_a_clone_stays_as_it_is(tmp_path: Path, recipe: Recipe) -> None:
    """Its negative prompt acts on nothing at guidance 1; a clone that has it can still grow."""
    frozen = replace(recipe, guidance_scale=1.0, negative_prompt="sky", revision="sha256:1", scheduler="DDIMScheduler")
    (tmp_path / "recipe.json").write_text(json.dumps(frozen.to_dict()))
    assert find_recipe(str(tmp_path / "recipe.json"), {}).hash == frozen.hash
    folder = write_tiny_family("SDXL Turbo", tmp_path / "model")
    # A task of an array names the revision, too.
    for overrides in ({"model": str(folder)}, {"model": str(folder), "revision": "sha256:1"}):
        copy = find_recipe(str(tmp_path / "recipe.json"), overrides)
        assert copy.hash == frozen.hash and copy.model_dir == str(folder)


def test_families__a_grid_of_a_model_that_ignores_guidance_has_one_column(tmp_path: Path, recipe: Recipe) -> None:
    chosen = recipe_of(write_tiny_family("Flux schnell", tmp_path / "model"), recipe)
    one, three = (draw_grid(chosen, "n01", 0, scales, [1]) for scales in ([1.0], [1.0, 2.0, 7.5]))
    assert one.size == three.size


def test_families__the_page_shows_the_table() -> None:
    page = (Path(__file__).parents[3] / "docs/families.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    shown = {row[0]: row[1:] for row in rows[1:]}
    assert shown.keys() == BY_NAME.keys()
    for family in FAMILIES:
        acts = {ALWAYS: "always", NEVER: "never"}.get(family.acts_above, f"above {family.acts_above:g}")
        keyword = "" if family.guidance == "guidance_scale" else f" (`{family.guidance}`)"
        negative = {
            "guidance": "with guidance",
            "true_cfg_scale": "with `--true-cfg-scale` above 1",
            "no": "refused",
        }[family.negative_prompt]
        assert shown[family.name] == [
            acts + keyword, negative, str(family.size), str(family.num_inference_steps), f"{family.guidance_scale:g}",
            family.dtype, str(family.max_batch_size or "any"),
        ]  # fmt: skip
