"""Checks while generating: images below a score are generated again, as flagged ones are."""

import itertools
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from builders.checks import clip
from builders.checks.base import LoadedCheck, loaded_checks, pin_checks, scores
from builders.checks.sharpness import sharpness
from builders.cli.main import main
from builders.coordination.policy import End, Policy
from builders.digits_sd import DigitsSD
from builders.errors import OutOfMemoryError, UserError
from builders.format.manifest import read_manifest
from builders.format.open_clone import open_clone
from builders.planning.plan import Plan
from builders.recipes.checks import parse_check
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe, recipe_from_dict
from builders.storage.base import open_storage
from tests.in_process import call

ROOT = Path(__file__).parents[3]
THIRD = """
TAKES_MODEL = False

def load(model, revision):
    '''Rejects images whose seed is a multiple of three, and all images of one class.'''
    return lambda images, samples: [0.0 if s.seed % 3 == 0 or s.wnid == "n13744722" else 1.0 for s in samples]
"""
BODY = "TAKES_MODEL = False\ndef load(model, revision):\n    return lambda images, samples: "
MAKE = ("digits_sd/c_cfg2", "--images-per-class", 4, "--shard-size", 20, "--batch-size", 10)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checks") / "third.py"
    path.write_text(THIRD)
    return path


@pytest.fixture(scope="module")
def made(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "clone"
    ended = call(main, "make", MAKE[0], out, *MAKE[1:], "--check", f"{file}:0.5")
    assert ended.returncode == 0, ended.stderr
    assert "4 images are below the score of a check at every attempt" in ended.stdout
    return out


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def rows_of(clone: Path) -> list[dict[str, Any]]:
    opened = open_clone(clone)
    return [row for shard in range(len(opened.manifest.shards)) for row in opened.metadata(shard).to_pylist()]


def test_checks__low_images_are_generated_again_until_a_seed_passes(made: Path) -> None:
    plan = Plan(replace(recipe_from_dict(read_manifest(open_storage(str(made))).recipe), checks=()), 4)
    for row in rows_of(made):
        label = [entry.wnid for entry in plan.recipe.classes].index(row["wnid"])
        attempts = [plan.sample(label, row["index"], attempt).seed % 3 != 0 for attempt in range(10)]
        if row["wnid"] == "n13744722":
            assert (row["attempt"], row["verdict"], row["check_score"]) == (9, "third", 0.0)
            continue
        first = attempts.index(True)
        assert (row["attempt"], row["check_score"]) == (first, 1.0)
        assert row["verdict"] == ("third" if first else "") and row["seed"] % 3


def test_checks__a_stream_of_datasets_has_the_same_images(made: Path, file: Path) -> None:
    builder = DigitsSD("c_cfg2", images_per_class=4, shard_size=20, batch_size=10, checks=(f"{file}:0.5",))
    rows = {row["key"]: row for row in rows_of(made)}
    # The first shard alone.
    streamed = list(itertools.islice(builder.as_streaming_dataset(split="train"), 20))
    for row in streamed:
        expected = rows[row["__key__"]]
        names = ("sha256", "seed", "attempt", "verdict", "check_score")
        assert [row["json"][name] for name in names] == [expected[name] for name in names]
    assert any(row["json"]["attempt"] for row in streamed)


def test_checks__counts_are_in_manifest_card_and_status(made: Path) -> None:
    totals = read_manifest(open_storage(str(made))).verdict_totals()
    assert totals.low == {"n13744722": 4} and totals.remade["n13744722"] == 9 * 4
    remade = sum(row["attempt"] for row in rows_of(made))
    assert sum(totals.remade.values()) == remade
    card = (made / "README.md").read_text()
    assert "| check | `third.py@sha256:" in card and "4 images are below the score of a check" in card
    status = call(main, "status", made).stdout
    assert "below the score of a check after the last attempt, and kept: 4 images" in status
    assert f"generated again with another seed: {remade} attempts" in status


def test_checks__verify_and_redo_know_them(made: Path) -> None:
    assert call(main, "verify", made, "--deep", "--workers", 1).returncode == 0
    key = next(row["key"] for row in rows_of(made) if row["attempt"] == 1)
    assert call(main, "redo", made, key).stdout == f"{key}: identical\n"


def test_checks__killed_and_resumed_equals_uninterrupted(made: Path, file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "builders", "make", MAKE[0], str(tmp_path / "out"), *map(str, MAKE[1:])]
    process = subprocess.Popen([*command, "--check", f"{file}:0.5"], cwd=ROOT, start_new_session=True)
    while not list((tmp_path / "out").rglob("*.parquet")):
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out" / "clone.json").exists()
    ended = call(main, "make", MAKE[0], tmp_path / "out", *MAKE[1:], "--check", f"{file}:0.5")
    assert ended.returncode == 0, ended.stderr
    assert open_clone(tmp_path / "out").manifest.digest == open_clone(made).manifest.digest


def test_checks__a_stream_computes_with_the_threads_of_the_clone(tmp_path: Path) -> None:
    check = tmp_path / "threads.py"
    check.write_text(
        "import torch\nTAKES_MODEL = False\ndef load(model, revision):\n"
        "    return lambda images, samples: [float(torch.get_num_threads())] * len(images)"
    )
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        builder = DigitsSD("c_cfg2", images_per_class=1, batch_size=10, checks=(f"{check}:0",))
        scores = {row["json"]["check_score"] for row in builder.as_streaming_dataset(split="train")}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert scores == {1.0}


def test_checks__a_score_that_is_no_number_rejects_one_image(recipe: Recipe) -> None:
    check = LoadedCheck("odd", 0.5, lambda images, samples: [math.nan, 1.0, math.inf])
    images = [noise(4, 4)] * 3
    assert scores(check, images, [Plan(recipe, 6).sample_at(position) for position in range(3)]) == [-0.5, 1.0, -0.5]


def test_checks__too_little_memory_is_said_as_such(recipe: Recipe) -> None:
    def fail(*arguments: object) -> list[float]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    with pytest.raises(OutOfMemoryError, match="out of memory in check 'big'; try a smaller --batch-size"):
        scores(LoadedCheck("big", 0.5, fail), [noise(4, 4)], [Plan(recipe, 6).sample_at(0)])


def test_checks__an_edited_file_is_read_again(tmp_path: Path, recipe: Recipe) -> None:
    file, found = tmp_path / "edited.py", []
    for value in (0.25, 0.75):
        file.write_text(f"{BODY}[{value}] * len(images)")
        pinned = pin_checks(replace(recipe, checks=(f"{file}:0.1",)))
        found += scores(loaded_checks(pinned)[0], [noise(4, 4)], [Plan(recipe, 6).sample_at(0)])
    assert found == [0.25, 0.75]


def test_checks__another_file_or_score_is_another_recipe(file: Path, tmp_path: Path, recipe: Recipe) -> None:
    other = tmp_path / "third.py"
    other.write_text(THIRD + "# changed\n")
    base = replace(recipe, engine="folder", model_dir="")
    texts = [(), (f"{file}:0.5",), (f"{file}:0.6",), (f"{other}:0.5",), ("sharpness:5",)]
    assert len({pin_checks(replace(base, checks=checks)).hash for checks in texts}) == len(texts)
    assert (
        pin_checks(replace(base, checks=(f"{file}:0.50",))).hash
        == pin_checks(replace(base, checks=(f"{file}:.5",))).hash
    )


def test_checks__sharpness_equals_the_variance_of_scipys_laplacian() -> None:
    image = np.repeat(noise(21, 30)[..., :1], 3, axis=2)
    expected = ndimage.laplace(image[..., 0].astype(float))[1:-1, 1:-1].var()
    assert sharpness(image) == pytest.approx(expected)
    assert sharpness(np.full((8, 8, 3), 7, np.uint8)) == 0.0


def test_checks__clip_scores_are_the_cosines_of_transformers(tmp_path: Path, recipe: Recipe) -> None:
    from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

    from tests.builders.networks.test_clip import write_tiny

    write_tiny(tmp_path / "clip", "clip")
    samples = [Plan(recipe, 6).sample_at(position) for position in range(5)]
    images = [noise(32, 32, number) for number in range(5)]
    found = clip.load(str(tmp_path / "clip"), "")(images, samples)
    model = CLIPModel.from_pretrained(tmp_path / "clip").eval()
    tokens = AutoTokenizer.from_pretrained(tmp_path / "clip")(
        [sample.prompt for sample in samples], padding="max_length", truncation=True, max_length=24, return_tensors="pt"
    )
    pixels = CLIPImageProcessorPil.from_pretrained(tmp_path / "clip")(images, return_tensors="pt").pixel_values
    with torch.no_grad():
        logits = model(**tokens, pixel_values=pixels).logits_per_image / model.logit_scale.exp()
    assert list(found) == pytest.approx(logits.diagonal().tolist(), abs=1e-6)


def test_checks__texts_have_one_spelling() -> None:
    for text, written in (
        ("sharpness:50.0", "sharpness:50"),
        ("clip=a/b@main:.2", "clip=a/b@main:0.2"),
        ("clip=a/b@sha256:00ff:-1e-2", "clip=a/b@sha256:00ff:-0.01"),
        ("/x/y.py:1", "/x/y.py:1"),
        ("a=1@b/c.py:-0", "a=1@b/c.py:0"),
    ):
        assert str(parse_check(text)) == written == str(parse_check(written))
    for wrong in ("sharpness", "sharpness:", "sharpness:nan", ":1", "broken:1"):
        with pytest.raises(UserError, match="but must be NAME:LEAST"):
            parse_check(wrong)


def test_checks__mistakes_are_one_sentence(tmp_path: Path) -> None:
    files = {"syntax": "def", "empty": "", "fails": f"{BODY}1 / 0", "few": f"{BODY}[1.0]"}
    for name, content in files.items():
        (tmp_path / f"{name}.py").write_text(content)
    cases = [
        ("blur:1", "unknown check 'blur'"),
        ("clip:0.2", "lacks its model; give clip=MODEL:LEAST"),
        ("sharpness=a/b:2", "has a model, but takes none; give sharpness:LEAST"),
        (f"{tmp_path}/none.py:1", "does not exist; give --check the path of a file"),
        (f"{tmp_path}/few.py=a/b:1", "a file of your own loads its model itself"),
        (f"clip={tmp_path}:1", "has no weights in safetensors"),
        (f"{tmp_path}/syntax.py:1", "cannot be read (SyntaxError: "),
        (f"{tmp_path}/empty.py:1", "has no function load(model, revision)"),
        (f"{tmp_path}/fails.py:1", "check 'fails' fails (ZeroDivisionError: division by zero); repair it"),
        (f"{tmp_path}/few.py:1", "check 'few' gives [1.0]… for 10 images"),
    ]
    for number, (check, sentence) in enumerate(cases):
        ended = call(main, "make", MAKE[0], tmp_path / str(number), *MAKE[1:], "--check", check)
        assert ended.returncode == 2 and sentence in ended.stderr and "Traceback" not in ended.stderr, ended
    twice = call(main, "make", MAKE[0], tmp_path / "out", "--check", "sharpness:1", "--check", "sharpness:2")
    assert "have one name; rename the file of one, or leave it out" in twice.stderr


@pytest.mark.parametrize(("num_low", "ends"), [(195, True), (190, False)])
def test_checks__a_score_that_nothing_reaches_ends_the_run(num_low: int, ends: bool) -> None:
    policy = Policy(Execution(), is_begun=False)
    policy.on_start("a", 0, 0.0)
    decisions = policy.on_images("a", 200, 0, num_low, 1.0)
    assert [type(decision) for decision in decisions] == ([End] if ends else [])
    if ends:
        assert isinstance(decisions[0], End)
        assert str(decisions[0].error).startswith("checks reject 195 of the first 200 images; lower the score")
