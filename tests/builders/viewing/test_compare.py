import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from builders.cli import main as cli
from builders.errors import UserError
from builders.format.manifest import Manifest
from builders.make_clone import make_clone
from builders.planning.plan import Plan
from builders.recipes.recipe import Recipe
from builders.viewing.compare import compare_clones, describe


def made(recipe: Recipe, out: Path, rounds: int = 6) -> str:
    make_clone(Plan(recipe, rounds), str(out))
    return str(out)


@pytest.fixture
def clone_a(generated: Recipe, tmp_path: Path) -> str:
    return made(generated, tmp_path / "a")


def test_compare__a_clone_equals_itself(finished: tuple[Path, Manifest]) -> None:
    found = compare_clones(str(finished[0]), str(finished[0]))
    assert (
        found.settings == {} and found.num_both == found.num_identical == found.num_same_seed == finished[1].num_samples
    )
    assert found.differences == [] and "no setting differs" in describe(found)


def test_compare__another_guidance_shares_the_noise_and_differs_in_pixels(
    clone_a: str, generated: Recipe, tmp_path: Path
) -> None:
    found = compare_clones(clone_a, made(replace(generated, guidance_scale=3.0), tmp_path / "b"))
    assert found.settings == {"guidance_scale": (generated.guidance_scale, 3.0)}
    assert found.num_same_seed == found.num_both == 15 and found.num_first == found.num_second == 0
    assert len(found.differences) == found.num_both - found.num_identical > 0
    rms = [one.rms for one in found.differences]
    assert rms == sorted(rms, reverse=True) and 0 < rms[0] < 255


def test_compare__a_larger_clone_contains_the_smaller_one(clone_a: str, generated: Recipe, tmp_path: Path) -> None:
    found = compare_clones(made(generated, tmp_path / "b", rounds=12), clone_a)
    assert (found.num_both, found.num_first, found.num_second) == (15, 15, 0) and found.num_identical == 15


def test_compare__other_classes_and_sizes_are_reported(clone_a: str, generated: Recipe, tmp_path: Path) -> None:
    other = replace(generated, classes=generated.classes[:2], width=32, height=32)
    found = compare_clones(clone_a, made(other, tmp_path / "b"))
    assert found.settings["classes"] == (["n03"], []) and found.settings["width"] == (16, 32)
    assert found.num_both == 10 and math.isinf(found.differences[0].rms)


def test_compare__max_decoded_limits_the_compared_pairs(clone_a: str, generated: Recipe, tmp_path: Path) -> None:
    other = made(replace(generated, guidance_scale=3.0), tmp_path / "b")
    few, again = (compare_clones(clone_a, other, max_decoded=3) for _ in range(2))
    assert len(few.differences) == 3 and few == again


def test_compare__on_the_command_line(
    clone_a: str, generated: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = made(replace(generated, prompt="{c}, {h_c}"), tmp_path / "b")
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["fakeit-build", "compare", clone_a, other])
    cli.main()
    printed = capsys.readouterr().out
    assert "prompt " in printed and "{c}, {h_c}" in printed and "15 images in both" in printed


def test_compare__a_missing_clone_is_reported(clone_a: str) -> None:
    with pytest.raises(UserError, match=r"no clone at '.*nowhere'"):
        compare_clones(clone_a, "nowhere")
