"""Runs studies on a tiny base from the clone to the page, also killed and resumed, and divided into shares."""

import importlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest

from builders.errors import UserError
from fakeit_eval.studies.base import Options
from fakeit_eval.study import parse_share, run_study
from fakeit_eval.study_runs import Launcher, Setting
from tests import in_process

TINY = """
from dataclasses import replace
from fakeit_eval.study_bases.digits import BASE as DIGITS

BASE = replace(
    DIGITS,
    name="tiny",
    make_options=("--num-inference-steps", "1", "--shard-size", "20", "--batch-size", "20"),
    images_per_class=2,
    num_iterations=2,
    settings=("data.batch_size=10", "data.num_workers=0"),
    batch_size=10,
)
"""
VALUES = {
    "guidance": ["2"],
    "steps": ["1"],
    "size": ["1"],
    "prompts": ["c"],
    "features": ["c"],
    "card": ["synthetic"],
    "augmentation": ["plain", "dino"],
    "predict": ["guidance 1.5", "prompt c"],
}


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("FAKEIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tiny.py").write_text(TINY)
    return str(tmp_path / "tiny.py")


def times(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in folder.rglob("*") if p.name in ("clone.json", "backbone.json")}


def setting(out: Path, share: tuple[int, int] = (1, 1)) -> Setting:
    return Setting(out=out, trials=2, options=Options(seeds=(0,)), share=share)


def call_in_process(launcher: Launcher, module: str, arguments: list[str], out: Path) -> None:
    """Replaces the study's launcher: runs the same commands within this process."""
    if module in ("builders", "fakeit_train", "fakeit_eval"):
        ended = in_process.call(
            importlib.import_module(f"{module}.cli" if module == "fakeit_train" else f"{module}.cli.main").main,
            *arguments,
        )
        assert ended.returncode == 0, ended.stderr
    else:
        from builders.embedded.digits import write_class_folders

        write_class_folders(Path(arguments[0]))


class InOrder(Executor):
    """Replaces the study's threads: commands install signal handlers, which Python allows only in the main thread."""

    def submit(self, call: Any, /, *arguments: Any, **options: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        future.set_result(call(*arguments, **options))
        return future


def stay_in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fakeit_eval.study_runs.Launcher.__call__", call_in_process)
    monkeypatch.setattr("fakeit_eval.study_runs.ThreadPoolExecutor", lambda jobs: InOrder())


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of all studies; they share their clones and runs."""
    return tmp_path_factory.mktemp("studies")


@pytest.mark.parametrize("name", VALUES)
def test_study__each_study_writes_a_table_a_page_and_a_figure(
    name: str, base: str, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stay_in_process(monkeypatch)
    page = run_study(name, base, VALUES[name], setting(shared))
    assert page is not None and page.name == f"{name}-tiny.md"
    assert all(page.with_suffix(suffix).stat().st_size for suffix in (".csv", ".json", ".png", ".svg"))
    assert name != "augmentation" or "DINO's crops gain" in page.read_text()


def run_until_killed(pattern: str, name: str, base: str, out: Path) -> None:
    """Runs a study in a process of its own, and kills it with all its commands once a file exists."""
    arguments = ["study", name, "--base", base, "--seeds", "0", "--out", str(out), "--trials", "2"]
    command = [sys.executable, "-m", "fakeit_eval", *arguments, "--values", *VALUES[name]]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 300
    while not list(out.glob(pattern)) and time.monotonic() < end and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_study__a_killed_study_continues(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "studies"
    run_until_killed("clones/*/clone.json", "guidance", base, out)
    before = times(out)
    assert before and not list(out.glob("*.md"))
    stay_in_process(monkeypatch)
    page = run_study("guidance", base, VALUES["guidance"], setting(out))
    assert page is not None and before.items() <= times(out).items()


@pytest.mark.long
def test_study__a_study_killed_between_runs_continues_in_shares_and_is_reused(base: str, tmp_path: Path) -> None:
    out = tmp_path / "studies"
    run_until_killed("runs/*/backbone.json", "augmentation", base, out)
    before = times(out)
    assert before and not list(out.glob("*.md"))
    assert run_study("augmentation", base, [], setting(out, share=(1, 2))) is None  # the other share is unfinished
    page = run_study("augmentation", base, [], setting(out, share=(2, 2)))
    assert page is not None and "DINO's crops gain" in page.read_text()
    after = times(out)
    assert before.items() <= after.items()
    assert len(list(out.glob("runs/*/backbone.json"))) == 4 and len(list(out.glob("clones/*/clone.json"))) == 2
    assert run_study("augmentation", base, [], setting(out)) == page and times(out) == after


def test_study__a_failed_command_is_reported(base: str, tmp_path: Path) -> None:
    Path(base).write_text(Path(base).read_text().replace('"--batch-size", "20"', '"--batch-size", "0"'))
    with pytest.raises(
        UserError, match=r"'builders make digits_sd/c_h_inside_b_cfg7_5 .*' ended with status 2 .*batch_size is 0"
    ):
        run_study("card", base, ["synthetic"], setting(tmp_path / "studies"))


@pytest.mark.parametrize(
    ("name", "base_name", "values", "words"),
    [
        ("colour", "digits", [], "unknown study 'colour'; choose from augmentation, card"),
        ("size", "cifar", [], "unknown base 'cifar'; choose from digits"),
        ("guidance", "digits", ["high"], "'high' is not a number; give --values such as 1 1.5 2"),
        ("prompts", "digits", ["c_x"], "unknown value 'c_x'; choose from 'c' 'c_h'"),
        ("card", "imagenet_100", [], "base 'imagenet_100' needs its real training images; give --real"),
    ],
)
def test_study__mistakes_are_reported(name: str, base_name: str, values: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        run_study(name, base_name, values, Setting(out=tmp_path))


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "a/b", "1/2/3"])
def test_study__shares_are_checked(text: str) -> None:
    with pytest.raises(UserError, match="cannot be read; write i/n"):
        parse_share(text)


def test_study__settings_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown --fixed 'time'"):
        Setting(out=tmp_path, options=Options(fixed="time"))
    with pytest.raises(UserError, match="need at least one each"):
        Setting(out=tmp_path, jobs=0)
