"""Whole runs of objectives without a classifier: what they export, how they resume, and what validates them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from builders.errors import UserError
from builders.format.manifest import Manifest
from builders.format.open_clone import open_clone
from builders.image_sets.open_image_set import open_image_set
from builders.networks.backbone import build_network, load_backbone
from fakeit_eval.cli.main import main as evaluate
from fakeit_eval.features.extract import Loading, extract
from fakeit_eval.models import open_model
from fakeit_train.config import TrainConfig
from fakeit_train.data.mixture import open_mixture
from fakeit_train.metrics_log import CollapseWarning
from fakeit_train.objectives.base import build_objective
from fakeit_train.settings import load_config
from fakeit_train.trainer import train
from fakeit_train.validation.features import known_numbers
from tests.fakeit_train.test_trainer import _killed_at, logged, run, seen_batches, wait_for_a_checkpoint

SHORT = [
    "num_epochs=2", "data.batch_size=24", "data.num_workers=0", "log_every=1", "checkpoint_every=1", "log_keys=true",
    "contrast.projector_width=16", "contrast.embedding_size=8", "contrast.queue=30", "distillation.num_prototypes=24",
    "distillation.projector_width=16", "distillation.embedding_size=8",
]  # fmt: skip


def short(name: str) -> list[str]:
    """Returns the short settings that a config takes."""
    section = "contrast." if name == "digits_dino" else "distillation."
    return [setting for setting in SHORT if not setting.startswith(section)]


DIGITS = ("digits_supervised_contrastive", "digits_multi_positive", "digits_dino")


@pytest.fixture(scope="module", params=DIGITS)
def trained(request: pytest.FixtureRequest, siblings_clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Returns a config of each objective, and the folder of an uninterrupted run."""
    config, out = load_config(request.param, short(request.param)), tmp_path_factory.mktemp("run") / "whole"
    train(config, [str(siblings_clone)], out)
    return config, out


def test_objective_runs__killed_and_resumed_equal_an_uninterrupted_one(
    trained: tuple[TrainConfig, Path], siblings_clone: Path, tmp_path: Path
) -> None:
    config, whole = trained
    out = tmp_path / "cut"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fakeit_train.trainer._Run.step", _killed_at(5))
        with pytest.raises(KeyboardInterrupt):
            train(config, [str(siblings_clone)], out)
    train(config, [str(siblings_clone)], out, resume=True)
    assert seen_batches(out) == seen_batches(whole) and len(seen_batches(out)) == 8
    kept = ("loss", "feature_spread", "learning_rate")
    assert [{key: line[key] for key in kept} for line in logged(out)] == [
        {key: line[key] for key in kept} for line in logged(whole)
    ]
    found, expected = (load_file(folder / "checkpoint" / "step-00000008.safetensors") for folder in (out, whole))
    assert set(found) == set(expected) and all(torch.equal(found[name], expected[name]) for name in expected)
    state = {name.split(".")[1] for name in expected if name.startswith("objective.")}
    extra = {"teacher", "center"} if config.objective == "self_distillation" else {"queue", "queue_ids"}
    assert state == {"network", "projector", *extra}
    if config.objective != "self_distillation":
        # 24 images with 4 crops a step; the queue holds ids of real images.
        assert (expected["objective.queue_ids"] >= 0).all()


def test_objective_runs__export_an_encoder_alone(trained: tuple[TrainConfig, Path], tmp_path: Path) -> None:
    config, out = trained
    backbone, network = load_backbone(out)
    assert backbone.classes == () and backbone.feature_size == 192
    assert not [name for name in network.state_dict() if "projector" in name or name.startswith("fc.")]
    state = load_file(out / "checkpoint" / "step-00000008.safetensors")
    source = "teacher.network" if config.objective == "self_distillation" else "network"
    assert all(torch.equal(value, state[f"objective.{source}.{name}"]) for name, value in network.state_dict().items())


def test_objective_runs__an_encoder_can_be_probed_and_not_tested(
    trained: tuple[TrainConfig, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out = trained
    with pytest.raises(SystemExit) as ended:
        evaluate(["test", str(out), "--data", "digits_clean", "--out", str(tmp_path), "--workers", "0"])
    assert ended.value.code == 2 and "is an encoder without a classifier to test" in capsys.readouterr().err
    options = ["--out", str(tmp_path), "--workers", "0", "--trials", "1", "--cache", str(tmp_path / "cache")]
    evaluate(["probe", str(out), "--data", "photos", *options])
    (result,) = (tmp_path / "results").glob("probe-*.json")
    assert 0 < json.loads(result.read_text())["value"] <= 100


@pytest.mark.long
def test_objective_runs__resume_on_one_rank_after_two_were_killed(siblings_clone: Path, tmp_path: Path) -> None:
    """Two real processes are killed in mid-epoch; one continues with the same batches, whole prompts in each."""
    settings = [*short("digits_multi_positive"), "data.num_workers=1", "num_epochs=60", "checkpoint_every=2"]
    out = tmp_path / "run"
    process = run(out, siblings_clone, *settings, num_processes=2, config="digits_multi_positive")
    wait_for_a_checkpoint(out)
    # torchrun gives each rank a session of its own.
    for one in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
        one.kill()
    process.wait()
    config = load_config("digits_multi_positive", settings)
    assert train(config, [str(siblings_clone)], out, resume=True).is_finished
    mixture = open_mixture([str(siblings_clone)], config.data)
    order = mixture.order(config.data, deals_siblings=True)
    clone = open_clone(siblings_clone)
    expected = [[clone.key(number) for number, _ in order.global_batch(step)] for step in range(240)]
    ranks = [
        {line["step"]: line["keys"] for line in map(json.loads, path.read_text().splitlines())}
        for path in sorted(out.glob("keys-*.jsonl"))
    ]
    batches = [[key for rank in ranks for key in rank.get(step, [])] for step in range(1, 241)]
    assert batches == expected and len(ranks) == 2 and len(ranks[1]) < 240


def test_objective_runs__k_nn_and_probe_equal_scikit_learns(siblings_clone: Path, tmp_path: Path) -> None:
    config = load_config("digits_dino", [*short("digits_dino"), f"validation.data={siblings_clone}", "validation.knn=1",
                                         "validation.linear_probe=2", "validation.keep_best=true"])  # fmt: skip
    out = tmp_path / "run"
    train(config, [str(siblings_clone)], out)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    scores = [line for line in lines if "val_knn_top1" in line]
    assert [line["step"] for line in scores] == [4, 8] and ["val_probe_top1" in line for line in scores] == [
        False,
        True,
    ]
    images = open_image_set(str(siblings_clone))
    features = extract(open_model(str(out)), images, Loading(cache=tmp_path / "cache", workers=0))[:]
    assert len(images) == 96
    labels = images.labels
    nearest = KNeighborsClassifier(20, metric="cosine", weights=lambda distances: np.exp((1 - distances) / 0.07))
    knn = 100 * (nearest.fit(features, labels).predict(features) == labels).mean()
    probe = 100 * (LogisticRegression(max_iter=2000).fit(features, labels).predict(features) == labels).mean()
    assert scores[-1]["val_knn_top1"] == pytest.approx(knn, abs=1.1)
    assert scores[-1]["val_probe_top1"] == pytest.approx(probe, abs=1.1)
    assert json.loads((out / "best" / "scores.json").read_text())["step"] == 8
    assert load_backbone(out / "best")[0].classes == ()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_objective_runs__k_nn_is_what_an_encoder_is_validated_by(
    precision: str, siblings_clone: Path, tmp_path: Path
) -> None:
    settings = [*short("digits_dino"), "num_epochs=1", f"validation.data={siblings_clone}", f"precision={precision}"]
    train(load_config("digits_dino", settings), [str(siblings_clone)], tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "val_knn_top1" in line] == [4]


def test_objective_runs__start_from_a_classifier_and_from_an_encoder(
    finished: tuple[Path, Manifest], siblings_clone: Path, tmp_path: Path
) -> None:
    classifier, encoder = tmp_path / "classifier", tmp_path / "encoder"
    few = ["num_epochs=1", "data.batch_size=40", "data.num_workers=0"]
    train(load_config("digits", few), [str(finished[0])], classifier)
    train(
        load_config(
            "digits_dino",
            [*short("digits_dino"), f"init={classifier}", "optim.learning_rate=0", "optim.min_learning_rate=0"],
        ),
        [str(siblings_clone)],
        encoder,
    )
    before, after = (load_file(out / "backbone.safetensors") for out in (classifier, encoder))
    assert set(before) - set(after) == {"fc.weight", "fc.bias"}
    weights = [name for name in after if name.endswith("conv1.weight")]
    assert weights and all(torch.equal(before[name], after[name]) for name in weights)
    with pytest.warns(UserWarning, match=r"fc\.weight are initialized randomly"):
        train(load_config("digits", [*few, f"init={encoder}"]), [str(finished[0])], tmp_path / "again")


def test_objective_runs__the_best_is_judged_by_one_score(siblings_clone: Path, tmp_path: Path) -> None:
    settings = [*short("digits_dino"), f"validation.data={siblings_clone}", "validation.knn=1", "validation.linear_probe=2",
                "validation.keep_best=true"]  # fmt: skip
    train(load_config("digits_dino", settings), [str(siblings_clone)], tmp_path)
    # The probe is due after the second epoch alone, so nothing of the first is kept.
    assert json.loads((tmp_path / "best" / "scores.json").read_text())["step"] == 8


def test_objective_runs__known_images_lie_in_few_shards(siblings_clone: Path) -> None:
    mixture = open_mixture([str(siblings_clone)], load_config("digits_dino", []).data)
    found = known_numbers(mixture, 0, 40)
    assert len(set(found)) == 40 and len({mixture.shard_of(number) for number in found}) == 2
    assert known_numbers(mixture, 0, 1000) == list(range(96)) and known_numbers(mixture, 1, 40) != found


def test_objective_runs__no_positives_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="no crop has a positive, so nothing is learned"):
        CollapseWarning(True).look({"positives": 0.0, "feature_spread": 0.9})


def test_objective_runs__a_classifier_has_k_nn_beside_its_own_top1(
    finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    settings = ["num_epochs=1", "data.batch_size=20", "data.num_workers=0", f"validation.data={finished[0]}"]
    train(
        load_config("digits", [*settings, "validation.knn=1", "validation.num_known=30"]), [str(finished[0])], tmp_path
    )
    (scores,) = [
        line for line in map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines()) if "val_top1" in line
    ]
    assert {"val_top1", "val_knn_top1"} <= set(scores) and "val_probe_top1" not in scores


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("digits_multi_positive", [], "has one prompt for all images of a class"),
        ("digits_dino", ["validation.data={root}", "validation.every=3"], "validation.every is for objectives that train a"),
        ("digits", ["validation.knn=1"], "validation.knn is set, but there are no validation images; add --val DATA"),
    ],
)  # fmt: skip
def test_objective_runs__what_does_not_fit_is_one_sentence(
    name: str, settings: list[str], words: str, finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    given = [setting.format(root=finished[0]) for setting in settings]
    with pytest.raises(UserError, match=words) as message:
        train(load_config(name, ["data.batch_size=16", *given]), [str(finished[0])], tmp_path / "run")
    assert "\n" not in str(message.value)


def test_objective_runs__images_without_siblings_have_their_own_crops(siblings_clone: Path, tmp_path: Path) -> None:
    settings = [
        *short("digits_multi_positive"),
        "data.where=index != 1,index != 2,index != 3",
        "num_epochs=1",
        "contrast.queue=0",
    ]
    train(load_config("digits_multi_positive", settings), [str(siblings_clone)], tmp_path / "run")
    lines = logged(tmp_path / "run")
    assert all(3 <= line["positives"] <= 15 for line in lines) and min(line["positives"] for line in lines) < 15


def test_objective_runs__a_collapse_is_warned_of_once() -> None:
    warning = CollapseWarning(True)
    warning.look({"loss": 1.0})
    warning.look({"feature_spread": 0.2})
    with pytest.warns(UserWarning, match=r"embeddings of all images are nearly the same \(feature_spread 0.010\)"):
        warning.look({"feature_spread": 0.01})
    warning.look({"feature_spread": 0.0})


def test_objective_runs__a_teacher_without_centering_collapses(siblings_clone: Path, tmp_path: Path) -> None:
    """Without a center and with a student as sharp as its teacher, DINO gives the same for all images."""
    settings = ["distillation.center_momentum=1", "distillation.teacher_temperature_start=0.02", "num_epochs=10",
                "distillation.teacher_temperature=0.02", "optim.learning_rate=0.02", "optim.name=momentum"]  # fmt: skip
    with pytest.warns(UserWarning, match="nearly the same"):
        train(load_config("digits_dino", [*short("digits_dino"), *settings]), [str(siblings_clone)], tmp_path / "run")


def test_objective_runs__imagenets_config_takes_two_steps(siblings_clone: Path, tmp_path: Path) -> None:
    """With a small network and small crops, because ViT-S at 224 pixels takes long here."""
    settings = ["data.batch_size=48", "num_epochs=1", "data.num_workers=0", "crops.kinds.0.size=32", "log_every=1",
                "backbone.input_size=32", "backbone.arch_options.img_size=32", "backbone.arch_options.depth=2"]  # fmt: skip
    outcome = train(load_config("imagenet_100_sd_multi_positive", settings), [str(siblings_clone)], tmp_path / "run")
    assert outcome.num_steps == 2 and [line["positives"] for line in logged(tmp_path / "run")] == [7, 7]
    shutil.rmtree(tmp_path / "run")


def test_objective_runs__torchvision_networks_become_encoders() -> None:
    config = load_config(
        "digits_dino", [*short("digits_dino"), "backbone.library=torchvision", "backbone.arch=mobilenet_v3_small"]
    )
    config = replace(config, backbone=replace(config.backbone, arch_options={}))
    objective: Any = build_objective(build_network(config.backbone), config)
    crops = [torch.randint(0, 256, (2, 2, side, side, 3), dtype=torch.uint8) for side in (32, 24)]
    loss, _ = objective(crops, torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
    assert torch.isfinite(loss)
