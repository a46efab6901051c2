import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from builders.format.manifest import Manifest
from fakeit_eval.cli import main as cli
from fakeit_train.settings import load_config
from fakeit_train.trainer import train
from tests import in_process
from tests.fakeit_eval.official import class_folders, food101


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["fakeit-eval", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def results(run: Path, pattern: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((run / "results").glob(pattern))]


@pytest.fixture(scope="module")
def trained(finished: tuple[Path, Manifest], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("eval") / "run"
    settings = ["num_epochs=1", "data.batch_size=20", "data.num_workers=0"]
    train(load_config("digits", settings), [str(finished[0])], out)
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FAKEIT_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_cli__test_writes_a_result_and_prints_a_table(
    run: Path, finished: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "test", run, "--data", finished[0]) == 0
    (result,) = results(run, "test-*.json")
    assert result["data"]["num_samples"] == finished[1].num_samples and result["data"]["digest"] == finished[1].digest
    assert 0 <= result["value"] <= result["top5"] <= 100 and len(result["per_class"]) == 10
    assert result["interval"][0] <= result["value"] <= result["interval"][1]
    assert sum(sum(row.values()) for row in result["confusion"].values()) == finished[1].num_samples
    assert f"{result['value']:.1f}" in capsys.readouterr().out
    images = pq.read_table(run / "results" / result["images"]).to_pydict()
    assert len(set(images["key"])) == finished[1].num_samples
    assert 100 * np.mean(images["is_right"]) == pytest.approx(result["value"], abs=1e-3)
    assert np.mean(images["loss"]) == pytest.approx(result["negative_log_likelihood"], abs=1e-4)
    assert 0 <= result["calibration_error"] <= 100


def test_cli__the_same_command_again_reads_the_result(
    run: Path, finished: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("test", run, "--data", finished[0])
    assert call(monkeypatch, *command) == 0
    (path,) = (run / "results").glob("*.json")
    written = path.stat().st_mtime_ns
    assert call(monkeypatch, *command) == 0 and path.stat().st_mtime_ns == written
    assert call(monkeypatch, *command, "--again") == 0 and path.stat().st_mtime_ns != written
    other = json.loads(path.read_text())
    path.write_text(json.dumps({**other, "weights_sha256": "of other weights", "value": -1}))
    assert call(monkeypatch, *command) == 0 and json.loads(path.read_text())["value"] == other["value"]


def test_cli__test_on_digits_by_name(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "test", run, "--data", "digits", "--workers", 1) == 0
    found = {result["data"]["name"]: result for result in results(run, "test-*.json")}
    assert {name: result["data"]["num_samples"] for name, result in found.items()} == {
        "digits_clean": 597,
        "digits_rescanned": 597,
        "digits_sketch": 597,
        "digits_restyled": 483,
        "digits_hard": 360,
    }
    assert len(found["digits_hard"]["per_class"]) == 6
    assert "in place of imagenet_r" in capsys.readouterr().out


def test_cli__probe_on_clones_and_report(
    run: Path, finished: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "probe", run, "--train", finished[0], "--test", finished[0], "--trials", 2) == 0
    (result,) = results(run, "probe-*.json")
    assert 0 < result["value"] <= 100 and len(result["runs"][0]["trials"]) == 2
    assert call(monkeypatch, "report", run) == 0
    assert "| probe: logistic regression |" in capsys.readouterr().out
    assert call(monkeypatch, "report", run, "--format", "csv", "-o", run / "table.csv") == 0
    assert (run / "table.csv").read_text().startswith("run,trained on,task,data")


def test_cli__probe_over_seeds_is_mean_and_spread(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(monkeypatch, "probe", run, "--data", "wine", "--trials", 2, "--seeds", 0, 1, 2) == 0
    (result,) = results(run, "probe-wine-*.json")
    values = [one["top1"] for one in result["runs"]]
    assert result["value"] == pytest.approx(np.mean(values), abs=1e-3)
    assert result["top1_spread"] == pytest.approx(np.std(values, ddof=1), abs=1e-3) and len(values) == 3
    assert result["num_images"] == {"train": 71, "val": 36, "test": 71}


@pytest.mark.parametrize("probe", ["sgd", "k_nearest_neighbors"])
def test_cli__other_probes(probe: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(monkeypatch, "probe", run, "--data", "wine", "--trials", 2, "--probe", probe) == 0
    (result,) = results(run, "probe-wine-*.json")
    assert result["settings"]["probe"] == probe and result["value"] > 40


def test_cli__other_counts_than_the_papers_are_refused_or_reported(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    food101(tmp_path / "sets", monkeypatch)
    command = ("probe", run, "--data", "food101", "--root", tmp_path / "sets", "--trials", 1)
    assert call(monkeypatch, *command) == 2
    assert "18 train images instead of 68,175" in capsys.readouterr().err
    assert call(monkeypatch, *command, "--any-count") == 0
    (result,) = results(run, "probe-food101-*.json")
    assert "2 classes instead of 101" in result["data"]["difference"]
    assert "instead of" in capsys.readouterr().out


def test_cli__probe_on_a_folder_with_splits(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train", "val", "test"):
        class_folders(tmp_path / "mine" / split, ["cat", "dog"], count=4)
    assert call(monkeypatch, "probe", run, "--data", tmp_path / "mine", "--trials", 1) == 0
    (result,) = results(run, "probe-mine-*.json")
    assert result["num_images"] == {"train": 8, "val": 8, "test": 8}


@pytest.mark.parametrize("normalization", ["text", "caption"])
def test_cli__analyze_measures_features(
    normalization: str,
    run: Path,
    finished: tuple[Path, Manifest],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(monkeypatch, "analyze", run, "--data", finished[0], "wine", "--normalization", normalization) == 0
    result, of_all = sorted(results(run, "analyze-*.json"), key=lambda found: found["settings"]["group"])
    measures = result["measures"]
    assert 0 <= measures["sparsity"] < 1 and 0 < measures["intra_class_distance"] <= 2
    assert 0 < measures["feature_redundancy"] <= 1 and result["value"] == pytest.approx(
        measures["coding_length"], abs=1e-4
    )
    assert of_all["data"]["num_samples"] == 178 and of_all["settings"]["group"] == "transfer"
    printed = capsys.readouterr().out
    assert f"{measures['coding_length']:.4g}" in printed and "feature redundancy" in printed


def test_cli__features_from_a_file_are_probed_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKEIT_CACHE", str(tmp_path / "cache"))
    rng, labels = np.random.default_rng(0), np.arange(120) % 3
    features = (np.eye(8)[labels] * 3 + rng.normal(size=(120, 8))).astype(np.float32)
    np.savez(
        tmp_path / "clip.npz", X_train=features[:80], y_train=labels[:80], X_test=features[80:], y_test=labels[80:]
    )
    out = tmp_path / "out"
    command = ("--features", tmp_path / "clip.npz", "--out", out)
    assert call(monkeypatch, "probe", *command, "--trials", 3) == call(monkeypatch, "analyze", *command) == 0
    (probed,), (measured,) = results(out, "probe-*.json"), results(out, "analyze-*.json")
    assert probed["value"] > 70 and probed["num_images"] == {"train": 64, "val": 16, "test": 40}
    assert measured["data"]["num_samples"] == 120


def test_cli__changed_images_are_tested_again(
    run: Path, finished: tuple[Path, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are tested again although their names, sizes and classes stay the same."""
    from PIL import Image

    wnids = finished[1].label_names[:2]
    for wnid, gray in zip(wnids, (0, 255), strict=True):
        (tmp_path / "mine" / wnid).mkdir(parents=True)
        Image.new("RGB", (32, 32), (gray, gray, gray)).save(tmp_path / "mine" / wnid / "x.bmp")
    assert call(monkeypatch, "test", run, "--data", tmp_path / "mine") == 0
    (before,) = results(run, "test-*.json")
    first, second = (tmp_path / "mine" / wnid / "x.bmp" for wnid in wnids)
    contents = first.read_bytes(), second.read_bytes()
    first.write_bytes(contents[1])
    second.write_bytes(contents[0])
    assert call(monkeypatch, "test", run, "--data", tmp_path / "mine") == 0
    (after,) = results(run, "test-*.json")
    assert after["data"]["digest"] == before["data"]["digest"] and after["data"]["state"] != before["data"]["state"]


def test_cli__results_of_another_model_are_not_overwritten(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    other = Path(shutil.copytree(run, tmp_path / "other"))
    weights = load_file(other / "backbone.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, other / "backbone.safetensors")
    command = ("--data", "wine", "--out", tmp_path / "out")
    assert call(monkeypatch, "analyze", run, *command) == 0
    assert call(monkeypatch, "analyze", other, *command) == 2
    assert f"holds results of '{run}'" in capsys.readouterr().err


def test_cli__a_run_that_was_moved_keeps_its_results(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "analyze", run, "--data", "wine") == 0
    (written,) = (run / "results").glob("*.json")
    moved = Path(shutil.move(run, tmp_path / "elsewhere"))
    before = (moved / "results" / written.name).stat().st_mtime_ns
    monkeypatch.chdir(tmp_path)
    for name in ("elsewhere", "./elsewhere/", moved):
        assert call(monkeypatch, "analyze", name, "--data", "wine") == 0
    assert (moved / "results" / written.name).stat().st_mtime_ns == before


def test_cli__a_folder_with_splits_is_measured_as_one(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "test"):
        class_folders(tmp_path / "mine" / split, ["cat", "dog"], count=4)
    assert call(monkeypatch, "analyze", run, "--data", tmp_path / "mine") == 0
    (result,) = results(run, "analyze-*.json")
    assert result["data"]["num_classes"] == 2 and result["data"]["num_samples"] == 16


def test_cli__features_that_are_not_finite_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "nan.npz", X=np.full((9, 4), np.nan, dtype=np.float32), y=np.arange(9) % 3)
    assert call(monkeypatch, "analyze", "--features", tmp_path / "nan.npz", "--out", tmp_path / "out") == 2
    assert "features are NaN or infinite" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "wrong", [{"feature_size": "x"}, {"input_size": 0}, {"mean": ["a", "b", "c"]}, {"mean": [0.5]}, {"std": [0, 1, 1]}]
)
def test_cli__a_damaged_description_is_one_sentence(
    wrong: dict[str, Any], run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "backbone.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **wrong}))
    assert call(monkeypatch, "test", run, "--data", "digits_clean") == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_cli__a_suite_runs_everything_and_the_same_again_reads_it(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "suite", run, "--trials", 2) == 0
    first, files = capsys.readouterr().out, {path: path.stat().st_mtime_ns for path in (run / "results").glob("*.json")}
    assert len(files) == 5 + 3 + 8 and first.count("| Sketch, R, A ") == 1
    assert call(monkeypatch, "suite", run, "--trials", 2) == 0
    assert capsys.readouterr().out == first
    assert {path: path.stat().st_mtime_ns for path in (run / "results").glob("*.json")} == files


def test_cli__a_killed_probe_continues_with_its_finished_trials(run: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fakeit_eval", "probe", str(run), "--data", "photos", "--trials", "16"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    log = wait_for_trials(tmp_path / "cache" / "studies", 4)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = finished_trials(log)
    assert not list((run / "results").glob("probe-*"))
    assert in_process.call(cli.main, *command[3:]).returncode == 0
    after = finished_trials(log)
    assert after[: len(before)] == before and len(after) == 16
    (result,) = results(run, "probe-photos-*.json")
    assert len(result["runs"][0]["trials"]) == 16


def wait_for_trials(studies: Path, count: int) -> Path:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for log in studies.glob("*/trials.log"):
            if len(finished_trials(log)) >= count:
                return log
        time.sleep(0.05)
    raise AssertionError("no trial is finished in time")


def finished_trials(log: Path) -> list[int]:
    """Numbers of the finished trials in a journal, for which Optuna writes operation 6 with state 1 or 2."""
    lines = [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [line["trial_id"] for line in lines if line["op_code"] == 6 and line["state"] in (1, 2)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["test", "nowhere", "--data", "CLONE"], "no trained backbone in 'nowhere'"),
        (["test", "RUN", "--data", "nowhere"], "there is no clone, no directory of class folders and no archive"),
        (["test", "--data", "CLONE"], "no model to evaluate"),
        (["test", "RUN", "--data", "imagenet_r"], "'imagenet_r' needs the directory of its files"),
        (["test", "RUN", "--data", "CLONE", "--batch-size", "0"], "--batch-size is 0 and --workers "),
        (["probe", "RUN", "--train", "CLONE", "--test", "CLONE", "--trials", "0"], "0 trials"),
        (["probe", "RUN", "--train", "CLONE"], "a probe needs --data TASK, or --train and --test"),
        (["probe", "RUN"], "a probe needs --data TASK"),
        (["probe", "RUN", "--data", "arcraft"], "unknown task 'arcraft'; did you mean aircraft?"),
        (["probe", "RUN", "--data", "wine", "--probe", "svm"], "unknown probe 'svm'; choose from"),
        (["probe", "RUN", "--data", "wine", "--seeds", "1", "1"], "--seeds 1 1 should be different numbers"),
        (["probe", "RUN", "--data", "wine", "--seeds", "-1"], "--seeds -1 should be different numbers from 0"),
        (["probe", "R" * 300, "--data", "wine"], "File name too long"),
        (["study", "colour"], "unknown study 'colour'"),
        (["study", "size", "--share", "3/2"], "--share 3/2 cannot be read"),
        (["probe", "RUN", "--features", "x.npz"], "--features is evaluated on its own"),
        (
            ["analyze", "RUN", "--data", "CLONE", "--normalization", "both"],
            "unknown normalization 'both'; choose from text, caption",
        ),
        (["analyze", "RUN"], "no data to evaluate on"),
        (["suite", "RUN", "--suite", "all"], "unknown suite 'all'; choose from digits, imagenet"),
        (["test", "RUN", "--data", "CLONE", "--format", "html"], "unknown format 'html'"),
        (["report", "nowhere"], "no results in 'nowhere'"),
    ],
)
def test_cli__mistakes_are_one_sentence_and_status_2(
    arguments: list[str],
    words: str,
    run: Path,
    finished: tuple[Path, Manifest],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths = {"RUN": run, "CLONE": finished[0]}
    assert call(monkeypatch, *(paths.get(argument, argument) for argument in arguments)) == 2
    message = capsys.readouterr().err.strip().splitlines()
    assert len(message) == 1 and message[0].startswith("fakeit-eval: ") and words in message[0]


def test_cli__damaged_weights_are_refused(
    run: Path,
    finished: tuple[Path, Manifest],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (run / "backbone.safetensors").write_bytes(b"cos\nsystem\n(S'echo'\ntR.")
    assert call(monkeypatch, "test", run, "--data", finished[0]) == 2
    assert "cannot be loaded" in capsys.readouterr().err
