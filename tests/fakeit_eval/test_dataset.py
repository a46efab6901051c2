"""`fakeit-eval data` from the command to its files, on digits; what was planted in the images is found."""

import json
import os
import shutil
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from PIL import Image

from builders.classes.digits import compose, enlarge, load_digits_split
from builders.cli import main as build_cli
from builders.engines.base import pin_model
from builders.format.manifest import Manifest, read_manifest
from builders.image_sets.arrays import open_arrays
from builders.image_sets.open_image_set import open_image_set
from builders.make_clone import make_clone
from builders.planning.plan import Plan
from builders.recipes.recipe import Recipe
from builders.registry import find_recipe
from builders.storage.base import open_storage
from builders.verification.verify_clone import verify_clone
from fakeit_eval import models
from fakeit_eval.cli import main as cli
from fakeit_eval.dataset_measures.match import match_pairs
from fakeit_eval.features.extract import Loading, extract
from fakeit_eval.models import open_model
from fakeit_train.settings import load_config
from fakeit_train.trainer import train
from tests.planted_copies import planted_copies


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object, program: Any = cli) -> int:
    monkeypatch.setattr(sys, "argv", ["fakeit", *map(str, arguments)])
    try:
        program.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def result(out: Path) -> dict[str, Any]:
    (path,) = (out / "results").glob("data-*.json")
    return {**json.loads(path.read_text()), "path": path}


@pytest.fixture(scope="session")
def digits() -> Recipe:
    """The recipe of digits by the embedded model, with its model pinned."""
    return pin_model(find_recipe("digits_sd/c_cfg2", {"num_inference_steps": 2}))


@pytest.fixture(scope="session")
def made(digits: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of two images of each of the ten digits."""
    out = tmp_path_factory.mktemp("made") / "clone"
    make_clone(Plan(digits, 2), str(out))
    return out


@pytest.fixture(scope="module")
def classifier(finished: tuple[Path, Manifest], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained on real digits for a moment."""
    folder = tmp_path_factory.mktemp("real")
    settings = ["num_epochs=1", "data.batch_size=20", "data.num_workers=0"]
    train(load_config("digits", settings), [str(finished[0])], folder / "run")
    return folder / "run"


def test_data__numbers_files_and_tables(
    made: Path,
    scans: Path,
    classifier: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    manifest = read_manifest(open_storage(str(made)))
    command = ("data", made, "--real", scans / "test", "--backbone", "pixels", "--classifier", classifier)
    assert call(monkeypatch, *command, "--per-class", "--out", tmp_path) == 0
    printed = capsys.readouterr().out
    found = result(tmp_path)
    numbers = found["numbers"]
    expected = [
        "kernel_distance", "precision", "recall", "density", "coverage", "vendi_score", "class_distance",
        "prompt_distance", "recognizability", "copies",
    ]  # fmt: skip
    assert list(numbers) == expected
    for name, number in numbers.items():
        # Twenty images are too few for intervals of measures of neighbors.
        low, high = number.get("interval") or (number["value"], number["value"])
        assert low <= number["value"] <= high and number["meaning"], name
        assert ("interval" in number) == (name not in ("precision", "recall", "density", "coverage"))
        assert name.replace("_", " ") in printed
    assert found["value"] == pytest.approx(numbers["coverage"]["value"], abs=1e-4) and found["unit"] == "coverage"
    assert found["data"]["digest"] == manifest.digest
    # Both sets have the same number of each class, and the result says so.
    assert found["num_compared"] == manifest.num_samples
    assert "the sets have 20 and 597" in found["notes"][0]
    assert set(found["per_class"]) == set(manifest.label_names)
    assert all("needs more than 5 images" in one["missing"]["coverage"] for one in found["per_class"].values())
    table = pq.read_table(found["path"].with_suffix(".parquet"))
    synthetic, real = (table.filter(np.equal(table["set"], name)) for name in ("synthetic", "real"))
    assert (len(synthetic), len(real)) == (20, 597)
    assert np.mean(synthetic["in_manifold"]) == pytest.approx(numbers["precision"]["value"])
    assert np.mean(real["is_covered"].drop_null()) == pytest.approx(numbers["coverage"]["value"])
    assert np.mean(synthetic["is_recognized"]) == pytest.approx(numbers["recognizability"]["value"])
    assert set(synthetic["nearest"].to_pylist()) <= set(real["key"].to_pylist())
    assert all((scans / "test" / key).is_file() for key in real["key"].to_pylist())
    written = found["path"].stat().st_mtime_ns
    assert call(monkeypatch, *command, "--per-class", "--out", tmp_path) == 0
    assert found["path"].stat().st_mtime_ns == written
    assert call(monkeypatch, "report", found["path"], "--format", "csv") == 0
    assert "recognizability" in capsys.readouterr().out


def test_data__without_a_reference_only_diversity(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(monkeypatch, "data", made, "--backbone", "pixels", "--out", tmp_path) == 0
    found = result(tmp_path)
    assert list(found["numbers"]) == ["vendi_score", "class_distance", "prompt_distance"]
    assert found["unit"] == "vendi_score" and "copies" not in found


def test_data__images_of_other_classes_are_compared_as_a_whole(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "real" / name).mkdir(parents=True)
        for number in range(9):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(
                tmp_path / "real" / name / f"{number}.png"
            )
    options = ("--real", tmp_path / "real", "--backbone", "pixels", "--per-class", "--out", tmp_path)
    assert call(monkeypatch, "data", made, *options) == 0
    found = result(tmp_path)
    assert found["notes"] == ["no class in common; compared on 18 images of each set"]
    assert found["numbers"]["coverage"]["value"] == 0
    assert all("coverage" not in one["numbers"] for one in found["per_class"].values())


def test_data__three_images(
    digits: Recipe, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = replace(digits, classes=digits.classes[:3])
    make_clone(Plan(small, 1), str(tmp_path / "clone"))
    options = ("--real", scans / "train", "--backbone", "pixels", "--per-class", "--out", tmp_path)
    assert call(monkeypatch, "data", tmp_path / "clone", *options) == 0
    assert "no coverage: needs more than 5 images of each set, and has 3" in capsys.readouterr().out
    numbers = result(tmp_path)["numbers"]
    assert "coverage" not in numbers and "vendi_score" in numbers and "copies" in numbers


def test_data__the_difference_of_two_clones_that_share_noise(
    digits: Recipe, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipes = {"a": digits, "b": replace(digits, guidance_scale=5.0), "c": replace(digits, seed=digits.seed + 1)}
    for name, recipe in recipes.items():
        make_clone(Plan(recipe, 6), str(tmp_path / name))
    options = ("--real", scans / "train", "--backbone", "pixels")
    for name in ("a", "b", "c"):
        assert call(monkeypatch, "data", tmp_path / name, *options, "--out", tmp_path / f"of-{name}") == 0
        other = tmp_path / ("a" if name == "b" else "b")
        against = ("--against", other, "--out", tmp_path / f"pair-{name}")
        assert call(monkeypatch, "data", tmp_path / name, *options, *against) == 0
    alone = {name: result(tmp_path / f"of-{name}")["numbers"] for name in recipes}
    paired = {name: result(tmp_path / f"pair-{name}") for name in recipes}
    for name, difference in paired["a"]["differences"].items():
        assert difference["value"] == pytest.approx(alone["a"][name]["value"] - alone["b"][name]["value"], abs=1e-4), (
            name
        )
        assert difference["value"] == pytest.approx(-paired["b"]["differences"][name]["value"], abs=1e-9), name

    def width(numbers: dict[str, Any], name: str) -> float:
        low, high = numbers[name]["interval"]
        return float(high - low)

    # Pairs of images from the same noise differ little; without shared noise the interval is as wide as of two sets.
    assert width(paired["a"]["differences"], "class_distance") < 0.7 * width(
        paired["c"]["differences"], "class_distance"
    )
    assert "noise" not in str(paired["a"]["notes"])
    assert (
        "the two clones are not known to share their seed, so their images may share no noise" in paired["c"]["notes"]
    )
    assert "minus" in capsys.readouterr().out


def test_data__users_mistakes_are_one_sentence(
    made: Path,
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clone = made
    mistakes: list[tuple[tuple[object, ...], str]] = [
        ((tmp_path / "nothing", "--backbone", "pixels"), "there is no clone"),
        (
            (clone, "--backbone", "pixels", "--real", "digits"),
            "'digits' are several test sets; give one of digits_clean",
        ),
        ((clone, "--backbone", "pixels", "--classifier", "pixels"), "'pixels' has no classifier"),
        ((clone, "--backbone", "pixels", "--against", scans / "train"), "have no key in common"),
        ((clone, "--backbone", "pixels", "--real", "imagenet_val"), "give --root DIR, or write imagenet_val=PATH"),
        (("digits_clean", "--backbone", "pixels", "--against", "digits_sketch"), "have no keys to pair them by"),
        ((clone, "--backbone", "pixels", "--against", clone, "--per-class"), "--per-class has no differences"),
        ((clone,), "weights of 'vit_small_patch14_dinov2.lvd142m' cannot be loaded"),
    ]
    for options, sentence in mistakes:
        assert call(monkeypatch, "data", *options, "--out", tmp_path / "out") == 2, sentence
        said = capsys.readouterr().err
        assert sentence in said and "Traceback" not in said
    assert "88 MB, license Apache-2.0" in said and "or name a run of fakeit-train or 'pixels'" in said


def test_data__card_and_gallery_show_the_measures(
    made: Path,
    digits: Recipe,
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clone = tmp_path / "clone"
    make_clone(Plan(digits, 6), str(clone))
    options = ("--real", scans / "train", "--backbone", "pixels", "--per-class", "--out", tmp_path)
    assert call(monkeypatch, "data", clone, *options) == 0
    path = result(tmp_path)["path"]
    assert call(monkeypatch, "card", clone, "--measures", path, program=build_cli) == 0
    card = (clone / "README.md").read_text()
    assert "| coverage |" in card and "fakeit-eval data CLONE --backbone pixels --real train --per-class" in card
    assert list(verify_clone(str(clone))) == []
    assert call(monkeypatch, "card", clone, "--check", program=build_cli) == 0
    gallery = ("gallery", clone, "--real", scans / "train", "--measures", path, "-o", tmp_path / "site")
    assert call(monkeypatch, *gallery, program=build_cli) == 0
    copied = json.loads((clone / "measures.json").read_text())
    assert str(tmp_path) not in json.dumps(copied)  # no paths of this machine
    capsys.readouterr()
    gallery = ("gallery", clone, "--real", scans / "test", "--measures", path, "-o", tmp_path / "other")
    assert call(monkeypatch, *gallery, program=build_cli) == 2
    assert "give --real the images of 'train'" in capsys.readouterr().err
    for command in ("card", "gallery"):
        assert call(monkeypatch, command, made, "--measures", path, program=build_cli) == 2
        assert "measures other images than those of" in capsys.readouterr().err
        assert call(monkeypatch, command, clone, "--measures", clone / "clone.json", program=build_cli) == 2
        assert "is no result of 'fakeit-eval data'" in capsys.readouterr().err


def test_data__copied_and_touched_files_keep_one_result(
    made: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path(shutil.copytree(scans / "test", tmp_path / "real"))
    command = ("data", made, "--backbone", "pixels", "--out", tmp_path)
    assert call(monkeypatch, *command, "--real", real) == 0
    first = result(tmp_path)
    for path in real.rglob("*.png"):
        os.utime(path, (1, 1))
    assert call(monkeypatch, *command, "--real", real) == 0
    second = result(tmp_path)  # the one file
    assert second["path"] == first["path"] and second["numbers"] == first["numbers"]
    assert second["data"]["state"] != first["data"]["state"]
    (tmp_path / "moved").mkdir()
    moved = real.rename(tmp_path / "moved" / "real")
    assert call(monkeypatch, *command, "--real", moved) == 0
    assert result(tmp_path)["data"]["state"] == second["data"]["state"]


def test_data__all_classes_of_the_classifier_compete(
    finished: tuple[Path, Manifest], classifier: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = sorted(path.name for path in (scans / "test").iterdir())[:2]
    shutil.copytree(scans / "test" / other, tmp_path / "mislabeled" / first)  # one class, and its images are of another
    command = ("data", tmp_path / "mislabeled", "--backbone", "pixels", "--classifier", classifier, "--out", tmp_path)
    assert call(monkeypatch, *command) == 0
    assert result(tmp_path)["numbers"]["recognizability"]["value"] < 0.9


def test_data__results_are_not_written_among_the_images(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(scans / "test", tmp_path / "mine"))
    monkeypatch.chdir(folder)
    assert call(monkeypatch, "data", ".", "--backbone", "pixels") == 2
    assert "would be written among the images of '.'; give --out another folder" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "data", "./mine", "--backbone", "pixels") == 0
    assert list((tmp_path / "evaluations" / "mine" / "results").glob("data-mine-*.json"))


def test_data__an_archive_with_names_in_latin_1(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(tmp_path / "old.tar", "w", encoding="latin-1") as tar:
        for number, path in enumerate(sorted((scans / "test").rglob("*.png"))[::60]):
            tar.add(path, f"caf\xe9/{number}\xe9.png")
    options = ("--backbone", "pixels", "--out", tmp_path)
    assert call(monkeypatch, "data", tmp_path / "old.tar", *options) == 0
    table = pq.read_table(result(tmp_path)["path"].with_suffix(".parquet"))
    assert set(table["class"].to_pylist()) == {"caf\xe9"} and "caf\xe9/0\xe9.png" in table["key"].to_pylist()


def test_match_pairs__classes_in_another_order_are_the_same_pairs(made: Path) -> None:
    one = open_image_set(str(made))
    order = np.random.default_rng(0).permutation(len(one.class_names))
    names = tuple(one.class_names[number] for number in order)
    other = replace(one, class_names=names, labels=np.argsort(order)[one.labels]).subset(np.arange(len(one))[::-1])
    first, second, rows, other_rows = match_pairs(one, other)
    assert first.labels.tolist() == second.labels.tolist() and first.class_names == second.class_names
    assert [one.key_of(row) for row in rows] == [other.key_of(row) for row in other_rows]


# --- what was planted is found ---


def as_set(images: list[Any], name: str) -> Any:
    stacked = np.stack(images)
    return open_arrays(stacked, np.zeros(len(stacked), np.int64), ("digit",), name=name)


def features(images: Any, tmp_path: Path) -> Any:
    return extract(open_model("pixels"), images, Loading(cache=tmp_path))[:]


def test_copies__of_training_images_are_found_and_few_others(tmp_path: Path) -> None:
    from fakeit_eval.dataset_measures.copies import find_copies
    from fakeit_eval.dataset_measures.neighbors import find_nearest

    real, held_out = ([compose(enlarge(scan)) for scan in load_digits_split(split)[0]] for split in ("train", "test"))

    planted = list(np.concatenate(list(planted_copies(real[:40]).values())))
    reference = features(as_set(real, "real"), tmp_path)
    found = {}
    for name, images in (("planted", planted), ("held out", held_out)):
        nearest = find_nearest(features(as_set(images, name), tmp_path), reference)
        found[name] = find_copies(nearest.distance, nearest.spacing).is_copy
    assert found["planted"][:20].all()
    assert found["held out"].mean() <= 0.01


# --- networks without a classifier ---


def test_models__an_encoder_of_timm_gives_its_pooled_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    options = {"img_size": 224, "depth": 1, "num_classes": 0}
    encoder = timm.create_model("vit_small_patch14_dinov2", **options).eval()
    # The weights cannot be downloaded here; all else is as with them.
    monkeypatch.setattr(
        models, "pretrained_network", lambda *_, **__: (encoder, {"mean": (0.5,) * 3, "std": (0.5,) * 3})
    )
    model = open_model("dinov2")
    assert model.backbone.classes == () and model.backbone.input_size == 224
    rng = np.random.default_rng(0)
    images = as_set([rng.integers(0, 256, (224, 224, 3), dtype=np.uint8) for _ in range(3)], "noise")
    found = extract(model, images, Loading(cache=tmp_path))[:]
    cropped = [images.decoded(number)[0] for number in range(3)]
    from builders.images.center_crop import center_crop

    pixels = torch.stack([torch.from_numpy(np.array(center_crop(one, 224))).permute(2, 0, 1) / 255 for one in cropped])
    with torch.inference_mode():
        expected = encoder((pixels - 0.5) / 0.5)
    assert found.shape == (3, 384)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_image_sets__keys_name_the_images(made: Path, scans: Path) -> None:
    clone, folders = open_image_set(str(made)), open_image_set(str(scans / "test"))
    assert clone.key_of(0) == clone.read.clone.key(0)  # type: ignore[attr-defined]
    some = folders.subset(np.array([5, 3]))
    assert some.key_of(0) == folders.key_of(5) and os.path.isfile(scans / "test" / some.key_of(1))
    assert clone.prompt_ids is not None
    prompts = clone.prompt_ids()
    assert len(prompts) == len(clone) and len(np.unique(prompts)) == 10
    assert clone.subset(np.array([7, 2])).prompt_ids().tolist() == [prompts[7], prompts[2]]  # type: ignore[misc]
