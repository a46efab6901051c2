import copy
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from builders.digits_sd import DigitsSD
from builders.errors import UserError
from builders.format.open_clone import open_clone
from builders.recipes.prompts import TEMPLATES


def test_clone_builder__digits_has_every_prompt_of_the_paper_at_both_guidance_scales() -> None:
    recipes = list(DigitsSD.RECIPES.values())
    assert {(r.prompt, r.guidance_scale) for r in recipes} == {(t, g) for t in TEMPLATES.values() for g in (7.5, 2.0)}
    assert len({r.name for r in recipes}) == len(recipes) == 12


def test_clone_builder__overrides_are_checked_and_reach_the_recipe() -> None:
    assert DigitsSD.recipe("c_cfg2", num_inference_steps=5).num_inference_steps == 5
    with pytest.raises(UserError, match="unknown field 'materialize'"):
        DigitsSD.recipe("c_cfg2", materialize=1)
    for name in (None, "default", "c_cfg3"):
        with pytest.raises(UserError, match=f"unknown config '{name}' of 'digits_sd'"):
            DigitsSD.recipe(name)


def test_clone_builder__cache_changes_with_recipe_and_length(tmp_path: Path) -> None:
    builders = [DigitsSD("c_cfg2", cache_dir=str(tmp_path), **kw) for kw in ({}, {"seed": 1}, {"images_per_class": 7})]
    assert len({builder.cache_dir for builder in builders}) == 3


def test_clone_builder__materialized_and_streamed_digits_are_equal(tmp_path: Path) -> None:
    builder = DigitsSD(
        "c_h_inside_b_cfg2", images_per_class=2, num_inference_steps=2, batch_size=8, cache_dir=str(tmp_path)
    )
    manifest = builder.materialize(tmp_path / "clone")
    clone = open_clone(tmp_path / "clone")
    assert manifest is not None and manifest.num_samples == len(clone) == 20
    assert [execution["batch_size"] for execution in manifest.executions] == [8]
    streamed = {row["__key__"]: row["json"]["sha256"] for row in builder.as_streaming_dataset(split="train")}
    made = clone.metadata(0, ["key", "sha256", "background", "prompt", "scheduler"]).to_pylist()
    assert streamed == {row["key"]: row["sha256"] for row in made}
    assert all(row["background"] and " inside " in row["prompt"] for row in made)
    assert {row["scheduler"] for row in made} == {"DPMSolverMultistepScheduler"}


def test_clone_builder__is_a_datasets_builder_that_two_processes_prepare(tmp_path: Path) -> None:
    import datasets

    builder = DigitsSD("c_cfg2", images_per_class=2, num_inference_steps=1, batch_size=5, cache_dir=str(tmp_path))
    assert isinstance(builder, datasets.GeneratorBasedBuilder) and isinstance(builder, DigitsSD)
    assert builder.name == "digits_sd" and list(builder.builder_configs) == list(DigitsSD.RECIPES)
    builder.download_and_prepare(num_proc=2)
    prepared = builder.as_dataset(split="train")
    streamed = {row["__key__"]: row["json"] for row in builder.as_streaming_dataset(split="train")}
    assert len(prepared) == 20 and {row["__key__"]: row["json"] for row in prepared} == streamed


def test_clone_builder__builders_and_streams_can_be_pickled(tmp_path: Path) -> None:
    builder = DigitsSD("c_cfg2", images_per_class=1, num_inference_steps=1, cache_dir=str(tmp_path))
    for again in (pickle.loads(pickle.dumps(builder)), copy.copy(builder)):
        assert type(again) is type(builder) and again.plan == builder.plan and again.cache_dir == builder.cache_dir
    stream = builder.as_streaming_dataset(split="train")
    assert [row["__key__"] for row in pickle.loads(pickle.dumps(stream))] == [row["__key__"] for row in stream]


def test_clone_builder__without_datasets_the_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "builders.generation.dataset_builder", None)
    with pytest.raises(UserError, match=r"pip install 'fakeit-sd\[build\]'"):
        DigitsSD("c_cfg2")


def test_clone_builder__recipes_are_read_without_datasets() -> None:
    code = "import sys\nfrom builders.digits_sd import DigitsSD\nDigitsSD.recipe('c_cfg2')\nprint('datasets' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_clone_builder__a_clone_from_another_clones_manifest_is_equal(tmp_path: Path) -> None:
    from builders.engines.base import pin_model
    from builders.make_clone import make_clone
    from builders.planning.plan import Plan
    from builders.registry import find_execution, find_recipe

    builder = DigitsSD("c_cfg2", images_per_class=1, num_inference_steps=1, cache_dir=str(tmp_path))
    manifest = builder.materialize(tmp_path / "first")
    path = str(tmp_path / "first" / "clone.json")
    again = pin_model(find_recipe(path, {}))
    assert manifest is not None and replace(again, model_dir="").hash == manifest.recipe_hash
    assert make_clone(Plan(again, 1), str(tmp_path / "second"), execution=find_execution(path)) == manifest


SUBCLASS = """
from dataclasses import replace
from my_helper import STEPS
from builders.digits_sd import DigitsSD


class MyDigits(DigitsSD):
    RECIPES = {"fast": replace(DigitsSD.RECIPES["c_cfg2"], num_inference_steps=STEPS)}
"""


def test_clone_builder__any_file_may_define_one_and_subclass_another(tmp_path: Path) -> None:
    from builders.registry import find_execution, find_recipe

    (tmp_path / "my_digits.py").write_text(SUBCLASS)
    (tmp_path / "my_helper.py").write_text("STEPS = 2\n")
    name = str(tmp_path / "my_digits.py")
    recipe = find_recipe(f"{name}/fast", {"seed": 3})
    assert (recipe.name, recipe.num_inference_steps, recipe.seed) == ("my_digits/fast", 2, 3)
    assert find_execution(f"{name}/fast") == DigitsSD.EXECUTION and len(recipe.classes) == 10
    with pytest.raises(UserError, match="unknown config 'slow' of 'my_digits'; choose from fast"):
        find_recipe(f"{name}/slow", {})
    for content, words in (("x = 1", "defines no builder"), ("import nowhere", "fails .*nowhere")):
        (tmp_path / "other.py").write_text(content)
        with pytest.raises(UserError, match=words):
            find_recipe(f"{tmp_path}/other.py/c", {})
    with pytest.raises(UserError, match="there is no builder file"):
        find_recipe(f"{tmp_path}/nope.py/c", {})


def test_clone_builder__helper_files_are_not_listed_as_builders(monkeypatch: pytest.MonkeyPatch) -> None:
    from builders import registry

    names = registry.builder_names()
    assert set(names) == {"custom_sd", "digits_sd", "imagenet_100_sd", "imagenet_1k_sd", "real_images"}
    # The import fails as in a file that lacks a library.
    monkeypatch.setitem(sys.modules, "builders.custom_sd", None)
    assert "custom_sd" not in registry.builder_names() and "digits_sd" in registry.builder_names()


@pytest.mark.long
def test_clone_builder__global_settings_of_the_users_process_do_not_change(tmp_path: Path) -> None:
    code = f"""
import torch, logging
before = torch.get_num_threads(), torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
torch.set_num_threads(2)
import diffusers, transformers
levels = diffusers.utils.logging.get_verbosity(), transformers.utils.logging.get_verbosity()
from builders.digits_sd import DigitsSD
from builders.format.open_clone import open_clone
from builders.verification.regenerate import regenerate
builder = DigitsSD("c_cfg2", images_per_class=1, num_inference_steps=1, batch_size=5, cache_dir={str(tmp_path)!r})
builder.materialize({str(tmp_path / "clone")!r})
assert len(list(builder.as_streaming_dataset(split="train"))) == 10
clone = open_clone({str(tmp_path / "clone")!r})
assert regenerate(clone, clone.key(0)).is_identical
after = torch.get_num_threads(), torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
assert after == (2, *before[1:]), (before, after)
assert levels == (diffusers.utils.logging.get_verbosity(), transformers.utils.logging.get_verbosity())
print("unchanged")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.endswith("unchanged\n"), done.stderr
