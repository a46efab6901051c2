import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from builders.classes.class_options import ClassOptions
from builders.engines.base import pin_model
from builders.errors import UserError
from builders.format.manifest import Manifest
from builders.recipes.recipe import Recipe
from builders.registry import find_execution, find_recipe


def write(tmp_path: Path, recipe: Recipe, **changes: Any) -> str:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({**recipe.to_dict(), **changes}))
    return str(path)


def test_registry__a_recipe_file_accepts_a_local_copy_of_its_model(
    generated: Recipe, tiny_pipeline: Path, tmp_path: Path
) -> None:
    found = find_recipe(write(tmp_path, generated), {"model": str(tiny_pipeline)})
    assert pin_model(found) == generated


def test_registry__another_local_model_needs_its_revision(
    generated: Recipe, checked_pipeline: Path, tmp_path: Path
) -> None:
    path = write(tmp_path, generated)
    with pytest.raises(UserError, match="or --revision sha256:") as message:
        pin_model(find_recipe(path, {"model": str(checked_pipeline)}))
    revision = str(message.value).partition("--revision ")[2].split()[0]
    other = pin_model(find_recipe(path, {"model": str(checked_pipeline), "revision": revision}))
    assert (other.model, other.revision) == (checked_pipeline.name, revision) and generated.model != other.model


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"engine": "difusion"}, "unknown engine 'difusion'"),
        ({"scenes": "abc"}, "scenes are not a list"),
        ({"width": None}, "a field is null"),
    ],
)
def test_registry__damaged_recipe_files_are_reported(
    changes: dict[str, Any], words: str, generated: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=words):
        find_recipe(write(tmp_path, generated, **changes), {})


def test_registry__real_images_have_a_source_and_no_counts(
    finished: tuple[Path, Manifest], scans: Path, tmp_path: Path
) -> None:
    path = str(finished[0] / "clone.json")
    assert find_recipe(path, {}, ClassOptions(source=str(scans / "test"))).model_dir == str(scans / "test")
    with pytest.raises(UserError, match="real images are counted by their folders"):
        find_recipe(path, {}, ClassOptions(source=str(scans / "test"), counts="counts.txt"))


def test_registry__a_builder_that_lacks_a_library_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "builders.digits_sd", None)
    with pytest.raises(UserError, match=r"pip install 'fakeit-sd\[build\]'"):
        find_recipe("digits_sd/c_cfg2", {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "it holds a list, not an object"),
        ('{"format": 1}', "clone format 1"),
        ('{"format": 3}', "install a newer one"),
    ],
)
def test_registry__files_without_a_recipe_are_reported(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "clone.json").write_text(text)
    for find in (partial(find_recipe, overrides={}), find_execution):
        with pytest.raises(UserError, match=words):
            find(str(tmp_path / "clone.json"))
