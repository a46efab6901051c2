"""Validation during training, compared with the results of fakeit_eval."""

import json
import shutil
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch

from builders.errors import UserError
from builders.format.manifest import Manifest
from builders.format.open_clone import open_clone
from builders.image_sets.open_image_set import open_image_set
from builders.networks.backbone import build_network
from fakeit_eval.evaluate.classifier import test_classifier as evaluate
from fakeit_eval.features.extract import Loading
from fakeit_eval.models import open_model
from fakeit_eval.open_test_sets import open_test_sets
from fakeit_train.config import TrainConfig, ValidationConfig
from fakeit_train.data.mixture import whole as whole_clone
from fakeit_train.distributed import World
from fakeit_train.run_folder import best_score
from fakeit_train.settings import load_config
from fakeit_train.trainer import train
from fakeit_train.validation.classifier import ClassifierValidation as Validation
from fakeit_train.validation.open_validations import open_validations
from tests.fakeit_train.test_trainer import SETTINGS

WORLD = World(0, 1, torch.device("cpu"))


def config_on(root: Path, *settings: str) -> TrainConfig:
    return load_config("digits", [*SETTINGS, "data.num_workers=0", f"validation.data={root}", *settings])


def test_validation__agrees_with_evaluation_at_the_end(finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(config_on(finished[0], "num_epochs=2", "optim.ema=0.5"), [str(finished[0])], out)
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    tests = [line for line in found if "val_top1" in line]
    steps = [line["step"] for line in found if "loss" in line]
    assert [line["step"] for line in tests] == [steps[-1] // 2, steps[-1]]  # after each epoch
    (data,) = open_test_sets([str(finished[0])], "")
    loading = Loading(batch_size=7, cache=tmp_path / "cache")
    result = json.loads(evaluate(open_model(str(out)), data, loading).read_text())
    assert tests[-1]["val_top1"] == pytest.approx(result["value"], abs=1e-4)
    assert tests[-1]["val_top1"] <= tests[-1]["val_top5"] <= 100 and tests[-1]["val_loss"] > 0


def test_validation__the_best_network_is_kept(finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = ("num_epochs=4", "optim.learning_rate=2", "validation.keep_best=true")
    train(config_on(finished[0], *settings), [str(finished[0])], out)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    tops = [line["val_top1"] for line in lines if "val_top1" in line]
    kept = json.loads((out / "best" / "scores.json").read_text())
    assert kept["val_top1"] == max(tops) and kept["step"] == next(
        x["step"] for x in lines if x.get("val_top1") == max(tops)
    )
    (data,) = open_test_sets([str(finished[0])], "")
    result = json.loads(evaluate(open_model(str(out / "best")), data, Loading(cache=tmp_path / "cache")).read_text())
    assert result["value"] == pytest.approx(max(tops), abs=1e-4)


def test_validation__does_not_change_training(finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    plain = load_config("digits", [*SETTINGS, "data.num_workers=0", "num_epochs=1"])
    train(plain, [str(finished[0])], tmp_path / "plain")
    train(config_on(finished[0], "num_epochs=1", "validation.every=1"), [str(finished[0])], tmp_path / "tested")
    weights = [(tmp_path / name / "backbone.safetensors").read_bytes() for name in ("plain", "tested")]
    assert weights[0] == weights[1]


def test_validation__ranks_share_the_images(finished: tuple[Path, Manifest]) -> None:
    images = open_image_set(str(finished[0]))
    config = config_on(finished[0], "validation.batch_size=3")
    config = replace(config, backbone=replace(config.backbone, classes=images.class_names))
    loaders = [Validation(images, config, World(rank, 3, torch.device("cpu"))).images.loader for rank in range(3)]
    seen = [label for loader in loaders if loader for _, labels, _ in loader for label in labels.tolist()]
    assert sorted(seen) == sorted(images.labels)


@pytest.mark.parametrize(
    "kind", [pytest.param("clone", marks=pytest.mark.long), "folders", pytest.param("archive", marks=pytest.mark.long)]
)
def test_validation__processes_start_at_the_first_validation_and_give_the_same_scores(
    kind: str, finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    """`--val` takes whatever `fakeit-eval --data` takes; here the same images as a clone, as folders and in a tar."""
    clone = open_clone(finished[0])
    for sample in clone:
        path = tmp_path / "images" / clone.manifest.label_names[sample.label] / f"{sample.key.replace('/', '-')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sample.image)
    shutil.make_archive(str(tmp_path / "images"), "tar", tmp_path, "images")
    data = {"clone": finished[0], "folders": tmp_path / "images", "archive": tmp_path / "images.tar"}[kind]
    config = config_on(finished[0], "validation.batch_size=3", f"validation.data={data}")
    config = replace(config, backbone=replace(config.backbone, classes=tuple(clone.manifest.label_names)))
    torch.manual_seed(0)
    network = build_network(config.backbone)
    alone = Validation(open_image_set(str(finished[0])), config, WORLD).scores(network)
    config = replace(config, data=replace(config.data, num_workers=2))
    with open_validations(config, whole_clone(clone), 1, WORLD) as opened:
        assert not active_children() and opened.is_due(1, 2)
        assert opened.scores(network, ()) == opened.scores(network, ()) == pytest.approx(alone, rel=1e-6)
        assert len(active_children()) == 2


def test_validation__labels_follow_class_ids(finished: tuple[Path, Manifest]) -> None:
    images = open_image_set(str(finished[0]))
    names = tuple(reversed(images.class_names))
    config = config_on(finished[0])
    config = replace(config, backbone=replace(config.backbone, classes=names), validation=ValidationConfig())
    torch.manual_seed(0)
    network = build_network(config.backbone)
    flipped = Validation(images, config, WORLD).scores(network)
    network.fc.weight.data = network.fc.weight.data.flip(0)  # type: ignore[union-attr, operator]
    config = replace(config, backbone=replace(config.backbone, classes=images.class_names))
    assert Validation(images, config, WORLD).scores(network) == pytest.approx(flipped, rel=1e-5)


def test_validation__unknown_classes_are_reported(finished: tuple[Path, Manifest]) -> None:
    config = config_on(finished[0])
    config = replace(config, backbone=replace(config.backbone, classes=("n02084071",)))
    with pytest.raises(
        UserError, match=r"class '.*' of the validation images '.*' is not among the 1 classes in training"
    ):
        open_validations(config, whole_clone(open_clone(finished[0])), 1, WORLD)
    config = replace(config, validation=ValidationConfig())
    assert not open_validations(config, whole_clone(open_clone(finished[0])), 1, WORLD).is_due(1, 1)


def test_validation__there_may_be_fewer_images_than_ranks(finished: tuple[Path, Manifest]) -> None:
    images = open_image_set(str(finished[0])).subset(np.array([5]))
    config = config_on(finished[0], "data.num_workers=2")
    config = replace(config, backbone=replace(config.backbone, classes=images.class_names))
    counts = [
        sum(
            len(labels)
            for _, labels in Validation(images, config, World(rank, 3, torch.device("cpu"))).images.batches()
        )
        for rank in range(3)
    ]
    assert counts == [1, 0, 0]


def test_validation__a_score_on_other_images_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "scores.json").write_text(json.dumps({"step": 3, "data": "a", "val_top1": 70.0}))
    assert [best_score(tmp_path, data, "val_top1") for data in ("a", "b")] == [70.0, -1.0]
    assert best_score(tmp_path, "a", "val_knn_top1") == -1.0
