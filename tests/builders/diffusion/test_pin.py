import re
from dataclasses import replace
from pathlib import Path

import pytest

from builders.diffusion.pin import EMBEDDED, pipeline_digest
from builders.engines.base import pin_model
from builders.errors import UnreachableError, UserError
from builders.recipes.recipe import Recipe, override_recipe
from builders.storage.hub_error import hub_error
from tests.tiny_families import write_tiny_family


def test_pin__a_directory_is_pinned_by_its_content(recipe: Recipe, tiny_pipeline: Path) -> None:
    pinned = pin_model(replace(recipe, model=str(tiny_pipeline)))
    assert (pinned.model, pinned.model_dir) == ("tiny-sd", str(tiny_pipeline))
    assert pinned.revision == pipeline_digest(str(tiny_pipeline))
    assert pin_model(pinned) == pinned
    with pytest.raises(UserError, match="was made with sha256:other"):
        pin_model(replace(pinned, revision="sha256:other"))


def test_pin__a_missing_model_is_reported(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no model_index\.json"):
        pin_model(replace(recipe, model=str(tmp_path)))
    with pytest.raises(UserError, match=r"cannot look up model 'nobody/nothing'.*--revision"):
        pin_model(replace(recipe, model="nobody/nothing"))


def test_pin__the_embedded_model_exists_and_is_small(recipe: Recipe) -> None:
    pinned = pin_model(replace(recipe, model=EMBEDDED))
    assert pinned.model == EMBEDDED and pinned.revision.startswith("sha256:")
    assert sum(path.stat().st_size for path in Path(pinned.model_dir).rglob("*")) < 8_000_000


def test_pin__another_model_has_its_own_scheduler_and_revision(generated: Recipe, tmp_path: Path) -> None:
    write_tiny_family("Flux dev", tmp_path / "flux")
    other = override_recipe(generated, {"model": str(tmp_path / "flux")})
    assert (other.revision, other.scheduler) == ("", "")
    assert pin_model(replace(other, model_dir="")).scheduler == "FlowMatchEulerDiscreteScheduler"
    chosen = override_recipe(generated, {"model": str(tmp_path / "flux"), "scheduler": "DDIMScheduler"})
    assert pin_model(replace(chosen, model_dir="")).scheduler == "DDIMScheduler"
    assert override_recipe(generated, {"model": generated.model}).revision == generated.revision


def test_pin__a_model_without_a_scheduler_is_reported(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(UserError, match="give --scheduler its class"):
        pin_model(replace(recipe, model=str(tmp_path), scheduler=""))


def test_pin__a_model_of_the_hub_is_pinned_by_its_commit_and_its_scheduler_is_read(recipe: Recipe) -> None:
    requested = replace(recipe, model="nobody/nothing", revision="a" * 40, scheduler="DDIMScheduler")
    assert pin_model(requested) == requested
    with pytest.raises(UserError, match=r"cannot read the scheduler of 'nobody/nothing' .*give --scheduler"):
        pin_model(replace(requested, scheduler=""))


class GatedRepoError(Exception):
    """An error with the name of the one that huggingface_hub raises."""


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (
            GatedRepoError("Cannot access gated repo"),
            UserError,
            r"https://huggingface.co/a/b and log in with 'hf auth login'",
        ),
        (TimeoutError("timed out"), UnreachableError, "cannot be had .timed out.; give another"),
        (ValueError("no such thing\nand more"), UserError, "cannot be had .no such thing.; give another"),
    ],
)
def test_pin__errors_of_the_hub_name_a_way_out(error: Exception, kind: type[Exception], words: str) -> None:
    wrapped = OSError("You are trying to access a gated repo")
    wrapped.__cause__ = error
    for found in (hub_error("it cannot be had", error, "a/b", "give another"),):
        assert type(found) is kind and re.search(words, str(found))
    if isinstance(error, GatedRepoError):
        assert "hf auth login" in str(hub_error("it", wrapped, "a/b", "give another"))
