"""Tests of clones whose prompts come from a file, from the plan to a reader."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from builders.cli.main import main
from builders.errors import UserError
from builders.format.open_clone import open_clone
from builders.make_clone import make_clone
from builders.planning.plan import Plan
from builders.prompts.canonical_rows import with_prompts
from builders.prompts.prompt_table import prompt_table
from builders.recipes.recipe import Recipe
from builders.registry import find_recipe
from builders.storage.base import open_storage
from builders.verification.regenerate import regenerate
from builders.verification.verify_clone import verify_clone
from fakeit_train.config import DataConfig
from fakeit_train.data.mixture import open_mixture
from tests.conftest import EXECUTION
from tests.in_process import call


def write_captions(
    path: Path, texts: Sequence[str] = ("a {c}", "b", "c"), skipped: str = "", weighted: str = ""
) -> str:
    lines = ["class,text,weight,skip"]
    for wnid in ("n01", "n02", "n03"):
        lines += [
            f"{wnid},{wnid} {text},{3 if text == weighted else 1},{str(text == skipped).lower()}" for text in texts
        ]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture
def captioned(generated: Recipe, tmp_path: Path) -> Recipe:
    return with_prompts(replace(generated, prompt=""), write_captions(tmp_path / "captions.csv"))


def prompts_of(recipe: Recipe, count: int = 12) -> list[str]:
    return [Plan(recipe, 12).sample(0, index).prompt for index in range(count)]


def test_prompt_table__each_caption_comes_once_before_any_twice_and_as_it_is(captioned: Recipe) -> None:
    found = prompts_of(captioned)
    assert sorted(found[:3]) == ["n01 a {c}", "n01 b", "n01 c"] and found[:3] == found[3:6]
    orders = {tuple(prompts_of(replace(captioned, seed=seed), 3)) for seed in range(60)}
    assert len(orders) == 6
    plan = Plan(captioned, 12)
    for label in range(3):
        sample, again = plan.sample(label, 1), plan.sample(label, 1, attempt=1)
        assert (
            sample.prompt == again.prompt == prompt_table(captioned.prompts).read()["text"][sample.prompt_index].as_py()
        )


def test_prompt_table__images_in_a_row_share_a_prompt(captioned: Recipe) -> None:
    found = prompts_of(replace(captioned, images_per_prompt=4))
    assert [found[4 * turn : 4 * turn + 4] for turn in range(3)] == [[one] * 4 for one in prompts_of(captioned, 3)]


def test_prompt_table__a_skipped_row_leaves_its_turns_to_the_next(captioned: Recipe, tmp_path: Path) -> None:
    before = prompts_of(captioned)
    path = write_captions(tmp_path / "captions.csv", skipped=before[1].removeprefix("n01 "))
    skipped = with_prompts(replace(captioned, prompts=""), path)
    assert prompts_of(skipped) == [before[2] if text == before[1] else text for text in before]
    assert skipped.hash != captioned.hash


def test_prompt_table__weights_say_how_often(captioned: Recipe, tmp_path: Path) -> None:
    path = write_captions(tmp_path / "captions.csv", weighted="b")
    found = prompts_of(with_prompts(captioned, path), 10)
    assert [found.count(f"n01 {text}") for text in ("a {c}", "b", "c")] == [2, 6, 2]


def test_prompt_table__templates_take_turns_and_draw_backgrounds_anew(generated: Recipe, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("{c}\n{lemma} inside {b}\n")
    recipe = with_prompts(replace(generated, scenes=("sky", "lawn", "ocean")), str(tmp_path / "t.txt"))
    plan = Plan(recipe, 12)
    samples = [plan.sample(0, index) for index in range(12)]
    assert {sample.prompt_index for sample in samples[::2]} != {sample.prompt_index for sample in samples[1::2]}
    assert all(
        (sample.background in sample.prompt) == ("inside" in sample.prompt or not sample.background)
        for sample in samples
    )
    inside = next(sample for sample in samples if sample.background)
    drawn = {plan.sample(0, inside.index, attempt).prompt for attempt in range(9)}
    assert len(drawn) == 3 and all(text.startswith("one inside ") for text in drawn)


def test_prompt_table__a_clone_carries_its_prompts(
    captioned: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "clone"
    make_clone(Plan(replace(captioned, images_per_prompt=2), 3), str(out), execution=EXECUTION)
    monkeypatch.setenv("FAKEIT_CACHE", str(tmp_path / "another machine"))
    assert list(verify_clone(str(out))) == []
    rows, metadata = pq.read_table(out / "prompts.parquet"), pq.read_table(out / "metadata")
    for prompt, number, wnid in zip(metadata["prompt"], metadata["prompt_index"], metadata["wnid"], strict=True):
        assert rows["text"][number.as_py()] == prompt and rows["class"][number.as_py()] == wnid
    assert pq.ParquetFile(out / "prompts.parquet").num_row_groups == 3
    clone = open_clone(str(out))
    assert regenerate(clone, clone[4].key, captioned.model_dir).is_identical
    card = (out / "README.md").read_text()
    assert "3 captions a class, 9 in all from `captions.csv`, 2 images each in a row" in card and "n02 b" in card
    again = find_recipe(str(out / "clone.json"), {"model": captioned.model_dir})
    grown = make_clone(Plan(again, 6), str(out), execution=EXECUTION)
    assert grown and list(verify_clone(str(out))) == []


def test_prompt_table__training_gets_an_id_for_each_prompt_of_each_class(generated: Recipe, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("{c}\na {c}\n")
    templates = with_prompts(replace(generated, images_per_prompt=1), str(tmp_path / "t.txt"))
    roots = [str(tmp_path / name) for name in ("templates", "plain", "again")]
    for recipe, root in zip((templates, generated, templates), roots, strict=True):
        make_clone(Plan(recipe, 4), root, execution=EXECUTION)
    mixture = open_mixture(roots, DataConfig())
    ids = [mixture.prompt_id(number, mixture.view(number)) for number in range(len(mixture))]
    by_prompt: dict[object, set[int]] = {}
    for number, root in enumerate(roots):
        for row in pq.read_table(f"{root}/metadata").to_pylist():
            by_prompt.setdefault((number, row["prompt"]), set())
    third = len(mixture) // 3
    assert set(ids[third : 2 * third]) == {-1} and -1 not in ids[:third] + ids[2 * third :]
    for number, found in enumerate(ids):
        clone = number // third
        key = mixture.key(number).partition("/")[2]
        (prompt,) = (
            row["prompt"] for row in pq.read_table(f"{roots[clone]}/metadata").to_pylist() if row["key"] == key
        )
        by_prompt[clone, prompt].add(found)
    assert all(len(found) == 1 for found in by_prompt.values())
    assert len({min(found) for found in by_prompt.values()} - {-1}) == 2 * 3 * 2


def test_prompt_table__verify_and_make_name_prompts_that_are_gone(
    captioned: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "clone"
    make_clone(Plan(captioned, 1), str(out), execution=EXECUTION)
    other = with_prompts(captioned, write_captions(tmp_path / "other.csv", ("x", "y")))
    monkeypatch.setenv("FAKEIT_CACHE", str(tmp_path / "another machine"))
    good = (out / "prompts.parquet").read_bytes()
    (out / "prompts.parquet").unlink()
    assert [str(fault) for fault in verify_clone(str(out))] == [
        "prompts.parquet: missing; restore it, for nothing else was checked"
    ]
    with pytest.raises(UserError, match="give --prompts that file"):
        find_recipe(str(out / "clone.json"), {})
    (out / "prompts.parquet").write_bytes(good[:-9])
    assert "cannot be read" in str(next(verify_clone(str(out))))
    with_prompts(captioned, str(tmp_path / "other.csv"))
    shutil.copy(prompt_table(other.prompts).path, out / "prompts.parquet")
    assert f"holds the prompts {other.prompts}, the recipe has {captioned.prompts}" in str(next(verify_clone(str(out))))


def test_prompt_table__a_worker_elsewhere_finds_them_in_the_output(
    captioned: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from builders.coordination.attempt import attempt
    from builders.coordination.job import Task
    from builders.coordination.output import read_state, write_target

    plan, out = Plan(captioned, 2), str(tmp_path / "clone")
    write_target(plan, read_state(open_storage(out)))
    monkeypatch.setenv("FAKEIT_CACHE", str(tmp_path / "another machine"))
    assert attempt(Task(plan=plan, out=out), 0, EXECUTION, lambda *counts: None) is None


def test_prompt_table__the_command_line_takes_either_prompt_or_prompts(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("{c}\na {c}\n")
    given = ("plan", "digits_sd/c_cfg2", "--prompts", tmp_path / "t.txt")
    ended = call(main, *given, "--limit", 2)
    assert ended.returncode == 0 and "prompts: 2 templates, sha256:" in ended.stdout
    for more, expected in (
        (("--prompt", "{c}"), "--prompt is one template and --prompts are those of a file; give one of them"),
        (("--images-per-prompt", 0), "images_per_prompt is 0, but must be at least 1"),
    ):
        ended = call(main, *given, *more)
        assert ended.returncode == 2 and expected in ended.stderr
    ended = call(main, *given[:2], "--images-per-prompt", 4)
    assert ended.returncode == 2 and "give --prompts too" in ended.stderr
    ended = call(main, "plan", "real_images/train", "--source", tmp_path, *given[2:])
    assert ended.returncode == 2
