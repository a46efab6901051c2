"""Tests that files of version 0.2 (`tests/compat/2`) can be opened, verified, grown, published and evaluated.

Their images can also be generated again.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from builders import plugins
from builders.classes.class_options import ClassOptions
from builders.coordination.status import read_status
from builders.engines.base import engine, pin_model
from builders.errors import UserError
from builders.format.open_clone import Clone, open_clone
from builders.images.read import decode_image
from builders.make_clone import make_clone
from builders.planning.plan import Plan
from builders.publishing.push_to_url import push_to_url
from builders.registry import find_execution, find_recipe
from builders.verification.regenerate import regenerate
from builders.verification.verify_clone import verify_clone
from fakeit_eval.cli import main as eval_cli
from tests import in_process
from tests.loopback.hub import Hub, hub_environment

FOLDER = Path(__file__).parent / "2"
CLONES = {"executions": 3, "dropped": 2, "broken": 3, "real": 3}
"""Finished clones and their numbers of shards."""
CLOSE_DB = 35.0


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Returns a copy of the files, with the engine of another package that made one of the clones."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "planted"))
    monkeypatch.setenv("PLANTED", json.dumps({"broken": ["n01_00000002"], "broken_once": ["n02_00000001"]}))
    for cached in (plugins._external_plugins, plugins.plugin_names):
        cached.cache_clear()
    yield Path(shutil.copytree(FOLDER, tmp_path / "kept"))
    for cached in (plugins._external_plugins, plugins.plugin_names):
        cached.cache_clear()


def plan_of(kept: Path, file: str, num_rounds: int) -> Plan:
    """Returns a plan with the recipe of a file of the copy, which also has the model or the source."""
    options = ClassOptions(source=str(kept / "source")) if file.startswith("real") else ClassOptions()
    is_diffusion = not file.startswith(("real", "broken"))
    overrides = {"model": str(kept / "model")} if is_diffusion else {}
    return Plan(pin_model(find_recipe(str(kept / file), overrides, options)), num_rounds)


def tars(out: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.rglob("*.tar"))}


def is_here(clone: Clone, plan: Plan, kept: Path) -> bool:
    """Whether this machine has the versions and the device with which a clone's first shard was made."""
    generate = engine(plan.recipe.engine).load(plan.recipe, find_execution(str(kept)))
    return generate.environment == clone.manifest.environments[0]


def assert_close(one: bytes, other: bytes) -> None:
    a, b = (decode_image(content).astype(float) for content in (one, other))
    assert 10 * np.log10(255**2 / max(((a - b) ** 2).mean(), 1e-9)) >= CLOSE_DB


def test_compat__the_files_are_small_and_of_format_2() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 3e6
    for name in CLONES:
        assert json.loads((FOLDER / name / "clone.json").read_text())["format"] == 2


@pytest.mark.parametrize("name", CLONES)
def test_compat__clones_are_opened_and_verified(kept: Path, name: str) -> None:
    clone = open_clone(str(kept / name))
    assert len(clone.manifest.shards) == CLONES[name] and clone.key(0) == clone[0].key
    assert list(verify_clone(str(kept / name), deep=True)) == []


def test_compat__executions_and_verdicts_are_read() -> None:
    executions = open_clone(str(FOLDER / "executions")).manifest
    assert [executions.executions[shard.execution]["batch_size"] for shard in executions.shards] == [4, 4, 3]
    broken = open_clone(str(FOLDER / "broken"))
    rows = [row for shard in range(CLONES["broken"]) for row in broken.metadata(shard).to_pylist()]
    found = {row["key"]: (row["broken"], row["attempt"], row["verdict"]) for row in rows if row["verdict"]}
    assert found == {"n01_00000002": (1, 9, "broken"), "n02_00000001": (0, 1, "broken")}
    dropped = open_clone(str(FOLDER / "dropped")).manifest.verdict_totals()
    assert dropped.remade and dropped.num_unchecked == 0


@pytest.mark.parametrize("name", ["executions", "dropped", "broken"])
def test_compat__clones_grow_and_keep_their_complete_shards(kept: Path, name: str) -> None:
    before, out = tars(kept / name), kept / name
    path = f"{name}/clone.json"
    old = open_clone(str(out)).manifest
    plan = plan_of(kept, path, old.num_rounds + 3)
    num_whole = sum(Plan(plan.recipe, old.num_rounds).shard_end(n) == plan.shard_end(n) for n in range(len(old.shards)))
    made = make_clone(plan, str(out), execution=find_execution(str(kept / path)))
    assert made is not None and made.num_samples == plan.num_samples
    assert [*before.items()][:num_whole] == [*tars(out).items()][:num_whole] and num_whole >= 1
    assert list(verify_clone(str(out), deep=True)) == []


def test_compat__an_unfinished_clone_is_finished(kept: Path) -> None:
    out = kept / "unfinished"
    plan = plan_of(kept, "unfinished/_making/target.json", 5)
    made = make_clone(plan, str(out), execution=replace(find_execution(str(kept / "executions/clone.json"))))
    assert made is not None and list(verify_clone(str(out), deep=True)) == []
    # The first two shards were made in the same way as those of the other clone.
    assert [*tars(out).items()][:2] == [*tars(FOLDER / "executions").items()][:2]


def test_compat__an_output_whose_target_has_its_old_name_is_recognized(kept: Path) -> None:
    out = kept / "unfinished"
    assert read_status(str(out)).num_shards_done == 2
    plan = plan_of(kept, "unfinished/_making/target.json", 5)
    with pytest.raises(UserError, match="holds a different recipe"):
        make_clone(Plan(replace(plan.recipe, seed=5), 5), str(out))
    assert read_status(str(out)).num_shards_done == 2


def test_compat__real_images_are_made_again_identically(kept: Path) -> None:
    plan = plan_of(kept, "real/clone.json", 6)
    made = make_clone(plan, str(kept / "again"), execution=find_execution(str(kept / "real/clone.json")))
    assert made is not None and tars(kept / "again") == tars(kept / "real")


@pytest.mark.parametrize("name", ["executions", "dropped", "broken"])
def test_compat__images_are_regenerated(kept: Path, name: str) -> None:
    clone = open_clone(str(kept / name))
    model = None if name == "broken" else str(kept / "model")
    plan = plan_of(kept, f"{name}/clone.json", clone.manifest.num_rounds)
    is_same = is_here(clone, plan, kept / name / "clone.json")
    for number in range(0, len(clone), 3):
        redone = regenerate(clone, clone.key(number), model)
        assert redone.is_identical or not is_same
        assert_close(redone.image, clone[number].image)


@pytest.mark.parametrize("name", CLONES)
def test_compat__clones_are_pushed_and_loaded_by_datasets(kept: Path, name: str, tmp_path: Path) -> None:
    import datasets

    url = f"memory://compat-{name}"
    push_to_url(str(kept / name), url)
    assert list(verify_clone(url, deep=True)) == []
    loaded = datasets.load_dataset(str(kept / name), cache_dir=str(tmp_path / "cache"))
    streamed = datasets.load_dataset(str(kept / name), streaming=True)
    clone = open_clone(str(kept / name))
    for found in (loaded[clone.manifest.split], streamed[clone.manifest.split]):
        assert [row["__key__"] for row in found] == [clone.key(number) for number in range(len(clone))]


def test_compat__a_clone_is_pushed_to_the_hub(kept: Path, hub: Hub) -> None:
    environment = hub_environment(hub, kept / "home")
    command = [sys.executable, "-m", "builders", "push", str(kept / "executions"), "user/kept"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_compat__the_network_is_evaluated_and_its_results_are_read(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(kept)
    [path] = (kept / "run" / "results").glob("*.json")
    before = json.loads(path.read_text())
    path.unlink()
    done = in_process.call(eval_cli.main, "test", "run", "--data", "real")
    assert done.returncode == 0, done.stderr
    [again] = (kept / "run" / "results").glob("*.json")
    found = json.loads(again.read_text())
    assert (found["value"], found["confusion"]) == (before["value"], before["confusion"])
    assert "33.3" in in_process.call(eval_cli.main, "report", "run").stdout
