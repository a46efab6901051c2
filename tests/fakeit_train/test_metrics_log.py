"""Tests that metrics reach the configured loggers, by reading them back with the loggers' own tools."""

import json
import sqlite3
import time
from pathlib import Path

import pytest

from builders.errors import UserError
from fakeit_train.metrics_log import forget_after, open_metrics_log
from fakeit_train.settings import load_config


def write(out: Path, log_to: tuple[str, ...], start: int, *steps: int) -> None:
    with open_metrics_log(out, log_to, {"num_epochs": 3}, start) as log:
        for step in steps:
            log(step=step, loss=1 / step)


def lines(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_metrics_log__always_writes_json_lines(tmp_path: Path) -> None:
    write(tmp_path, (), 0, 1, 2)
    write(tmp_path, (), 2, 4)
    assert lines(tmp_path) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}, {"step": 4, "loss": 0.25}]


def test_metrics_log__lines_of_repeated_steps_are_deleted(tmp_path: Path) -> None:
    write(tmp_path, (), 0, 1, 2, 3)
    (tmp_path / "keys-1.jsonl").write_text('{"step": 2, "keys": []}\n{"step": 3, "keys": []}\n{"step"')
    forget_after(2, tmp_path)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]
    assert (tmp_path / "keys-1.jsonl").read_text() == '{"step": 2, "keys": []}\n'


def test_metrics_log__writes_to_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write(tmp_path, ("tensorboard",), 0, 1, 2, 4)
    write(tmp_path, ("tensorboard",), 2, 3, 4)  # resumed after step 2
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(event.step, round(event.value, 4)) for event in found.Scalars("loss")] == [
        (1, 1.0), (2, 0.5), (3, 0.3333), (4, 0.25),
    ]  # fmt: skip


def test_metrics_log__writes_to_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    write(tmp_path, ("wandb",), 0, 1, 2)
    (run,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    end = time.monotonic() + 30
    # wandb's own process may still write after the run has finished (seen with 0.20).
    while not run.stat().st_size:
        assert time.monotonic() < end
        time.sleep(0.05)
    write(tmp_path, ("wandb",), 2, 3)
    assert len({path.name for path in tmp_path.glob("wandb/offline-run-*/run-*.wandb")}) == 1  # the same id


def test_metrics_log__writes_to_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess
    import sys

    script = (
        "import sys; from pathlib import Path; from fakeit_train.metrics_log import open_metrics_log\n"
        "with open_metrics_log(Path(sys.argv[1]), ('trackio',), {'num_epochs': 3}, 0) as log: log(step=1, loss=0.5)\n"
    )
    out = tmp_path / "my-run"
    out.mkdir()
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    subprocess.run([sys.executable, "-c", script, str(out)], check=True, timeout=120)
    (database,) = (tmp_path / "trackio").rglob("fakeit*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT run_name, step, metrics FROM metrics").fetchall()
    name = (out / "logged-as.txt").read_text().strip()
    assert name.startswith("my-run-") and (name, 1) in [row[:2] for row in rows]


def test_metrics_log__an_unknown_logger_is_reported() -> None:
    with pytest.raises(UserError, match="unknown logger 'tensorbord' in log_to; did you mean tensorboard"):
        load_config("digits", ["log_to=tensorbord"])
