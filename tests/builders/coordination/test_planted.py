"""Tests of `make` with failing images and workers: the engine and the builder belong to another package."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from builders.coordination import policy
from builders.format.open_clone import open_clone
from builders.generation.batch_size import choose
from fakeit_train.config import DataConfig
from fakeit_train.data.mixture import open_mixture

ROOT = Path(__file__).parents[3]
PLANTED = ROOT / "tests" / "planted"
RECIPE = f"{PLANTED / 'planted_sd.py'}/noise"


def make(
    out: Path, *options: object, gpus: str = "", before: str = "", **faults: Any
) -> "subprocess.CompletedProcess[str]":
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(PLANTED)]),
        "PLANTED": json.dumps(faults),
        "CUDA_VISIBLE_DEVICES": gpus,
    }
    main = "from builders.cli.main import main; main()"
    command = [sys.executable, "-c", before + main, "make", RECIPE, str(out), "--images-per-class", "20"]
    return subprocess.run(
        [*command, *map(str, options)], env=environment, capture_output=True, text=True, check=False, cwd=out.parent
    )


def tars(out: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.rglob("*.tar"))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("planted") / "whole"
    done = make(out)
    assert done.returncode == 0, done.stderr
    assert len(tars(out)) == 4
    return out


def test_planted__a_broken_image_is_kept_reported_and_skipped_in_training(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = open_clone(str(whole)).metadata(2)["key"][7].as_py()
    done = make(tmp_path / "out", broken=[key])
    assert done.returncode == 0 and "1 images are broken at every attempt" in done.stdout
    found = tars(tmp_path / "out")
    assert [name for name, digest in tars(whole).items() if found[name] != digest] == ["train-000002.tar"]
    row = open_clone(str(tmp_path / "out")).metadata(2).to_pylist()[7]
    assert (row["key"], row["broken"], row["attempt"], row["verdict"], row["nsfw"]) == (key, 1, 9, "broken", 0)
    data = open_mixture([str(tmp_path / "out")], DataConfig())
    assert len(data) == 79 and data.num_broken == 1 and key not in {data.key(number) for number in range(79)}
    taken = open_mixture([str(tmp_path / "out")], DataConfig(keep_broken=True))
    assert len(taken) == 80 and taken.num_broken == 0
    assert len(open_mixture([str(tmp_path / "out")], DataConfig(where=("broken == 1",), keep_broken=True))) == 1


def test_planted__other_workers_make_the_shards_of_one_out_of_memory(whole: Path, tmp_path: Path) -> None:
    done = make(tmp_path / "out", gpus="0,1", worker="1", fault="memory for ever", seconds=0.05)
    assert done.returncode == 0 and "worker 1 is retired: out of memory with batches of 5" in done.stderr
    assert tars(tmp_path / "out") == tars(whole)


def test_planted__other_workers_make_the_shards_of_one_with_a_full_scratch(whole: Path, tmp_path: Path) -> None:
    done = make(tmp_path / "out", gpus="0,1", worker="1", fault="full", seconds=0.05)
    assert done.returncode == 0 and "worker 1 is retired: No space left on device" in done.stderr
    assert tars(tmp_path / "out") == tars(whole)


def test_planted__a_hung_worker_is_killed_and_replaced(whole: Path, tmp_path: Path) -> None:
    before = "import builders.coordination.policy as p; p.MIN_SECONDS = 2.0; p.SECONDS_BEFORE_FIRST = 3.0\n"
    done = make(tmp_path / "out", gpus="0,1", before=before, worker="1", fault="hangs", seconds=0.05)
    assert done.returncode == 0 and "worker 1 is replaced: no new image for 3 seconds" in done.stderr
    assert tars(tmp_path / "out") == tars(whole)


def test_planted__a_run_without_workers_names_the_cause(tmp_path: Path) -> None:
    done = make(tmp_path / "out", gpus="0", worker="0", fault="memory for ever")
    assert done.returncode == 1 and "worker 0 is retired: out of memory with batches of 5" in done.stderr
    assert "no worker is left for the rest; run again to continue" in done.stderr and "Traceback" not in done.stderr


def test_planted__a_setting_that_breaks_most_images_ends_the_run(tmp_path: Path) -> None:
    done = make(tmp_path / "out", "--images-per-class", 60, "--shard-size", 240, all_broken=True)
    assert done.returncode == 2, done.stderr
    assert f"of the first {policy.NUM_FIRST_IMAGES} images came out broken" in done.stderr


def test_planted__auto_halves_the_batch_when_memory_runs_out(whole: Path, tmp_path: Path) -> None:
    done = make(tmp_path / "out", "--batch-size", "auto", gpus="0", worker="0", fault="memory")
    assert done.returncode == 0, done.stderr
    executions = open_clone(str(tmp_path / "out")).manifest.executions
    assert [execution["batch_size"] for execution in executions] == [1]


def test_planted__a_preview_writes_a_sheet_and_a_summary_but_no_clone(tmp_path: Path) -> None:
    done = make(tmp_path / "out", "--preview", 6)
    assert done.returncode == 0 and "6 images" in done.stdout and not (tmp_path / "out").exists()
    summary = json.loads((tmp_path / "preview.json").read_text())
    assert summary["num_images"] == len(summary["images"]) == 6 and summary["execution"]["batch_size"] == 5
    assert (tmp_path / "preview.png").read_bytes()[:4] == b"\x89PNG"
    assert {image["key"][:3] for image in summary["images"]} == {"n00", "n01", "n02", "n03"}


@pytest.mark.parametrize(
    ("rates", "size"),
    [
        ({1: 10.0, 2: 19.0, 4: 30.0, 8: 30.5}, 4),
        ({1: 10.0}, 1),
        ({1: 10.0, 2: 10.2, 4: 10.29}, 1),
        ({1: 1.0, 2: 2.0, 4: 4.0, 8: 3.0}, 4),
    ],
)
def test_tuning__the_smallest_batch_within_three_percent_of_the_best_is_chosen(
    rates: dict[int, float], size: int
) -> None:
    assert choose(rates) == size
