from dataclasses import replace
from pathlib import Path

import pytest

from builders.engines.base import pin_model
from builders.errors import UserError
from builders.format.manifest import Manifest
from builders.format.open_clone import open_clone
from builders.make_clone import make_clone
from builders.planning.plan import Plan
from builders.recipes.recipe import Recipe
from builders.verification.regenerate import regenerate
from builders.verification.verify_clone import verify_clone
from tests.conftest import EXECUTION
from tests.tiny_pipeline import overflowing_vae


@pytest.fixture(scope="module")
def made(checked_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes a clone with dropped images and unequal classes, in batches of four."""
    from tests.conftest import CLASSES

    recipe = Recipe(
        name="test/checked", classes=CLASSES, width=16, height=16, shard_size=16,
        num_inference_steps=2, prompt="{lemma} {b}", scenes=("sky", "desert/sand"), safety="drop", model=str(checked_pipeline),
    )  # fmt: skip
    out = tmp_path_factory.mktemp("redo") / "clone"
    make_clone(Plan(pin_model(recipe), 12), str(out), execution=EXECUTION)
    return out


def test_regenerate__every_image_comes_out_identical_even_if_it_was_retried(made: Path, checked_pipeline: Path) -> None:
    clone = open_clone(made)
    rows = [row for shard in range(len(clone.manifest.shards)) for row in clone.metadata(shard).to_pylist()]
    again = [row["key"] for row in rows if row["attempt"]] + [row["key"] for row in rows][::5]
    assert any(row["attempt"] for row in rows)
    assert all(regenerate(clone, key, str(checked_pipeline)).is_identical for key in again)


def test_regenerate__every_key_is_found(made: Path) -> None:
    clone = open_clone(made)
    assert [clone.find(clone.key(number)) for number in range(len(clone))] == list(range(len(clone)))
    for key in ("n01_00000099", "nope", "n09_00000000", "n01_x"):
        with pytest.raises(UserError, match=f"no sample '{key}'"):
            clone.find(key)


def test_regenerate__a_difference_is_reported(
    made: Path, checked_pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = open_clone(made)
    manifest = replace(clone.manifest, recipe={**clone.manifest.recipe, "image_quality": 40})
    clone.manifest = manifest
    redone = regenerate(clone, clone.key(0), str(checked_pipeline))
    assert not redone.is_identical and redone.num_pixels > 0 and 0 < redone.max_difference < 256
    assert str(redone) == f"differs in {redone.num_pixels} pixels by at most {redone.max_difference}"


def test_regenerate__another_model_and_real_images_are_refused(
    made: Path, tiny_pipeline: Path, finished: tuple[Path, Manifest]
) -> None:
    clone = open_clone(made)
    with pytest.raises(UserError, match="but the recipe was made with"):
        regenerate(clone, clone.key(0), str(tiny_pipeline))
    with pytest.raises(UserError, match="model 'checked-sd' was read from a local directory"):
        regenerate(clone, clone.key(0))
    with pytest.raises(UserError, match="real images"):
        regenerate(open_clone(finished[0]), "x")


def test_regenerate__safety_counts_are_in_manifest_card_and_verified(made: Path) -> None:
    clone = open_clone(made)
    rows = [row for shard in range(len(clone.manifest.shards)) for row in clone.metadata(shard).to_pylist()]
    totals = clone.manifest.verdict_totals()
    assert sum(totals.remade.values()) == sum(row["attempt"] for row in rows) > 0
    assert totals.flagged == {} and totals.num_unchecked == 0
    assert (
        f"{sum(totals.remade.values())} attempts were flagged or broken, and generated again"
        in (made / "README.md").read_text()
    )
    assert list(verify_clone(str(made), deep=True)) == []


def test_regenerate__images_decoded_in_32_bits_are_decoded_in_32_bits_again(
    generated: Recipe, tiny_pipeline: Path, tmp_path: Path
) -> None:
    overflowing_vae(tiny_pipeline, tmp_path / "large")
    recipe = pin_model(replace(generated, model=str(tmp_path / "large"), model_dir="", revision="", dtype="float16"))
    make_clone(Plan(recipe, 6), str(tmp_path / "clone"), execution=EXECUTION)
    clone = open_clone(tmp_path / "clone")
    rows = clone.metadata(0).to_pylist()
    assert {(row["dtype"], row["vae_dtype"], row["broken"]) for row in rows} == {("float16", "float32", 0)}
    assert all(regenerate(clone, row["key"], str(tmp_path / "large")).is_identical for row in rows)
    assert list(verify_clone(str(tmp_path / "clone"), deep=True)) == []
