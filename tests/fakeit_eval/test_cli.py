import json
import sys
from pathlib import Path

import pytest

from builders.format.manifest import Manifest
from fakeit_eval import cli
from fakeit_train.config import load_config
from fakeit_train.trainer import train


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["fakeit-eval", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture(scope="module")
def run(finished: tuple[Path, Manifest], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("eval") / "run"
    settings = ["num_epochs=1", "data.batch_size=20", "data.num_workers=0"]
    train(load_config("digits", settings), [str(finished[0])], out)
    return out


def test_cli__test_writes_a_result_and_prints_a_table(
    run: Path, finished: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "test", run, "--data", finished[0]) == 0
    result = json.loads(next((run / "results").glob("test-*.json")).read_text())
    assert result["data"]["num_samples"] == finished[1].num_samples and result["data"]["digest"] == finished[1].digest
    assert 0 <= result["value"] <= result["top5"] <= 100 and len(result["per_class"]) == 10
    assert f"{result['value']:.1f}" in capsys.readouterr().out


def test_cli__probe_and_report(
    run: Path, finished: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "probe", run, "--train", finished[0], "--test", finished[0], "--trials", 2) == 0
    result = json.loads(next((run / "results").glob("probe-*.json")).read_text())
    assert 0 < result["value"] <= 100 and len(result["trials"]) == 2
    assert call(monkeypatch, "report", run) == 0
    assert "| probe |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["test", "nowhere", "--data", "CLONE"], "no trained backbone in 'nowhere'"),
        (["test", "RUN", "--data", "nowhere"], "no clone at"),
        (["test", "--data", "CLONE"], "no run to test"),
        (["probe", "RUN", "--train", "CLONE", "--test", "CLONE", "--trials", "0"], "0 trials"),
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
    places = {"RUN": run, "CLONE": finished[0]}
    assert call(monkeypatch, *(places.get(argument, argument) for argument in arguments)) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and told[0].startswith("fakeit-eval: ") and words in told[0]


def test_cli__damaged_weights_are_told(
    run: Path,
    finished: tuple[Path, Manifest],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    import shutil

    damaged = shutil.copytree(run, tmp_path / "run")
    (damaged / "backbone.safetensors").write_bytes(b"cos\nsystem\n(S'echo'\ntR.")
    assert call(monkeypatch, "test", damaged, "--data", finished[0]) == 2
    assert "cannot be loaded" in capsys.readouterr().err


@pytest.mark.parametrize("reading", ["text", "caption"])
def test_cli__analyze_measures_features(
    reading: str,
    run: Path,
    finished: tuple[Path, Manifest],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(monkeypatch, "analyze", run, "--data", finished[0], "--reading", reading) == 0
    results = [json.loads(path.read_text()) for path in (run / "results").glob("analyze-*.json")]
    (result,) = [found for found in results if found["settings"]["reading"] == reading]
    measures = result["measures"]
    assert 0 <= measures["sparsity"] < 1 and 0 < measures["intra_class_distance"] <= 2
    assert 0 < measures["feature_redundancy"] <= 1 and result["value"] == pytest.approx(
        measures["coding_length"], abs=1e-4
    )
    printed = capsys.readouterr().out
    assert f"{measures['coding_length']:.4g}" in printed and "feature redundancy" in printed


def test_cli__an_unknown_reading_is_told(
    run: Path, finished: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "analyze", run, "--data", finished[0], "--reading", "both") == 2
    assert "unknown reading 'both'; choose from text, caption" in capsys.readouterr().err
