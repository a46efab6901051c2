"""Trains a network on class folders with unusual names and tests it on the same folders; checks how files are read."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from builders.cli.main import main as build
from builders.networks.backbone import load_backbone
from fakeit_eval.cli.main import main as evaluate
from fakeit_train.settings import load_config
from fakeit_train.trainer import train
from tests import in_process

NAMES = ("New York", "Ørsted", "C++", "C#", "北京", "🐱", "cat")


def write(folder: Path, names: tuple[str, ...], seed: int = 0) -> Path:
    draw = np.random.default_rng(seed)
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / name / f"{number}.jpg")
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("own") / "source", NAMES)


@pytest.fixture(scope="module")
def run(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    made = in_process.call(build, "make", "real_images/train", folder / "clone", "--source", source)
    assert made.returncode == 0
    settings = ["num_epochs=1", "data.batch_size=14", "data.num_workers=0"]
    train(load_config("digits", settings), [str(folder / "clone")], folder / "run")
    return folder / "run"


def score(run: Path, data: Path, out: Path, *options: str) -> dict[str, Any]:
    ended = in_process.call(evaluate, "test", run, "--data", data, "--out", out, "--cache", out / "cache", *options)
    assert ended.returncode == 0, ended.stderr
    (path,) = (out / "results").glob("test-*.json")
    return {**json.loads(path.read_text()), "stderr": ended.stderr}


def test_own_folders__folder_names_are_the_class_names(run: Path) -> None:
    backbone, _ = load_backbone(run)
    assert sorted(backbone.class_names) == sorted(NAMES) and len(set(backbone.classes)) == len(NAMES)
    assert "new_york" in backbone.classes and "orsted" in backbone.classes


def test_own_folders__all_images_are_tested(run: Path, source: Path, tmp_path: Path) -> None:
    found = score(run, source, tmp_path)
    assert found["data"]["num_samples"] == 4 * len(NAMES) and "unknown_classes" not in found["data"]
    clone = score(run, run.parent / "clone", tmp_path / "clone")
    assert clone["value"] == found["value"] and clone["per_class"] == found["per_class"]


def test_own_folders__classes_without_a_match_are_named(run: Path, source: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(source, tmp_path / "data"))
    (folder / "cat").rename(folder / "Oslo")
    (folder / "New York").rename(folder / "new-york")
    found = score(run, folder, tmp_path / "out")
    assert found["data"]["unknown_classes"] == ["Oslo"] and found["data"]["num_samples"] == 4 * (len(NAMES) - 1)
    assert "1 classes of" in found["stderr"] and "'Oslo'" in found["stderr"]


def test_own_folders__two_folders_of_one_class_are_refused(run: Path, source: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(source, tmp_path / "data"))
    (folder / "cat").rename(folder / "new york")
    ended = in_process.call(evaluate, "test", run, "--data", folder, "--out", tmp_path / "out")
    assert ended.returncode == 2 and "are both class 'new_york'" in ended.stderr


def test_own_folders__images_are_read_as_seen_or_as_published(run: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "data", ("cat", "C++"), seed=1)
    content = (folder / "cat" / "0.jpg").read_bytes()
    (folder / "cat" / "0.jpg").write_bytes(content[:-150])
    ended = in_process.call(evaluate, "test", run, "--data", folder, "--out", tmp_path / "out")
    assert ended.returncode == 2 and "0.jpg' cannot be read (JPEG image does not decode" in ended.stderr
    found = score(run, folder, tmp_path / "out2", "--as-published")
    assert found["data"]["read"] == "as_published" and found["data"]["cut_files"] == 1
    assert "1 files of" in found["stderr"] and "torchvision Resize" in found["data"]["preprocessing"]
    both = in_process.call(evaluate, "test", run, "--data", folder, "--as-published", "--as-seen")
    assert both.returncode == 2 and "exclude each other" in both.stderr


def test_own_folders__datasets_by_name_are_read_as_published(run: Path, tmp_path: Path) -> None:
    ended = in_process.call(evaluate, "probe", run, "--data", "wine", "--trials", "1", "--out", tmp_path / "out")
    assert ended.returncode == 0, ended.stderr
    (path,) = (tmp_path / "out" / "results").glob("probe-*.json")
    assert json.loads(path.read_text())["data"]["read"] == "as_published"
