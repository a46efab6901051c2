"""A study on a tiny base, for real: made, trained, evaluated, killed, divided, gathered."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from builders.format.errors import UserError
from fakeit_eval.studies.base import Options
from fakeit_eval.study import Setting, parse_part, run_study

TINY = """
from dataclasses import replace
from fakeit_eval.studies.bases.digits import BASE as DIGITS

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


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("FAKEIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tiny.py").write_text(TINY)
    return str(tmp_path / "tiny.py")


def times(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in folder.rglob("*") if p.name in ("clone.json", "backbone.json")}


def test_study__killed_goes_on_and_is_divided_and_used_again(base: str, tmp_path: Path) -> None:
    out = tmp_path / "studies"
    command = [
        sys.executable,
        "-m",
        "fakeit_eval",
        "study",
        "augmentation",
        "--base",
        base,
        "--seeds",
        "0",
        "--out",
        str(out),
    ]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not list(out.glob("runs/*/backbone.json")) and time.monotonic() < end:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = times(out)
    assert before and not list(out.glob("*.md"))
    setting = Setting(out=out, options=Options(seeds=(0,)), part=(1, 2))
    assert run_study("augmentation", base, [], setting) is None  # the other part is missing
    page = run_study("augmentation", base, [], Setting(out=out, options=Options(seeds=(0,)), part=(2, 2)))
    assert page is not None and "DINO's crops gain" in page.read_text()
    after = times(out)
    assert all(after[path] == found for path, found in before.items())  # what was finished was not made again
    assert len(list(out.glob("runs/*/backbone.json"))) == 4 and len(list(out.glob("clones/*/clone.json"))) == 2
    again = run_study("augmentation", base, [], Setting(out=out, options=Options(seeds=(0,))))
    assert again == page and times(out) == after


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("guidance", ["2"]),
        ("steps", ["1"]),
        ("size", ["1"]),
        ("prompts", ["c"]),
        ("features", ["c"]),
        ("card", ["synthetic"]),
    ],
)
def test_study__each_is_killed_and_goes_on(base: str, tmp_path: Path, name: str, values: list[str]) -> None:
    out = tmp_path / "studies"
    asked = ["study", name, "--base", base, "--seeds", "0", "--out", str(out), "--trials", "2", "--values", *values]
    process = subprocess.Popen(
        [sys.executable, "-m", "fakeit_eval", *asked], start_new_session=True, stdout=subprocess.DEVNULL
    )
    end = time.monotonic() + 120
    while not list(out.glob("clones/*/clone.json")) and time.monotonic() < end:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = times(out)
    assert before and not list(out.glob("*.md"))
    page = run_study(name, base, values, Setting(out=out, trials=2, options=Options(seeds=(0,))))
    assert page is not None and all(page.with_suffix(suffix).stat().st_size for suffix in (".csv", ".png", ".svg"))
    after = times(out)
    assert all(after[path] == found for path, found in before.items())


def test_study__a_command_that_fails_is_told(base: str, tmp_path: Path) -> None:
    broken = Path(base).read_text().replace("data.num_workers=0", "data.num_workers=-1")
    Path(base).write_text(broken)
    with pytest.raises(
        UserError, match=r"'fakeit_train digits --data .*' ended with status 2 .*data.num_workers is -1"
    ):
        run_study("card", base, ["synthetic"], Setting(out=tmp_path / "studies", options=Options(seeds=(0,))))


@pytest.mark.parametrize(
    ("name", "base_name", "values", "words"),
    [
        ("colour", "digits", [], "unknown study 'colour'; choose from augmentation, card"),
        ("size", "cifar", [], "unknown base 'cifar'; choose from digits"),
        ("guidance", "digits", ["high"], "'high' is no number; give --values such as 1 1.5 2"),
        ("prompts", "digits", ["c_x"], "unknown value 'c_x'; choose from 'c' 'c_h'"),
        ("card", "imagenet_100", [], "base 'imagenet_100' needs its real training images; give --real"),
    ],
)
def test_study__mistakes_are_told(name: str, base_name: str, values: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        run_study(name, base_name, values, Setting(out=tmp_path))


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "a/b", "1/2/3"])
def test_study__parts_are_checked(text: str) -> None:
    with pytest.raises(UserError, match="is no part; write i/n"):
        parse_part(text)


def test_study__settings_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown --fixed 'time'"):
        Setting(out=tmp_path, options=Options(fixed="time"))
    with pytest.raises(UserError, match="need at least one each"):
        Setting(out=tmp_path, jobs=0)
