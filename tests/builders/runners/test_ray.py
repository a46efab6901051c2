"""Tests of the Ray runner on this machine: a real cluster of two nodes, one of which is lost and replaced."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from builders.digits_sd import DigitsSD
from builders.format.manifest import Manifest
from builders.make_clone import FailedShardsError, make_clone
from builders.planning.plan import Plan
from builders.recipes.recipe import Recipe
from builders.recipes.sample import Sample
from builders.verification.verify_clone import verify_clone
from tests.builders.runners.test_local import BreaksProcess, digests, faulty

__all__ = ["faulty"]
pytestmark = pytest.mark.long
ROOT = str(Path(__file__).parents[4])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of two nodes with one core each."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["PYTHONPATH"] = ROOT
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    started.add_node(num_cpus=1)
    started.wait_for_nodes()
    yield started
    import ray

    ray.shutdown()
    started.shutdown()


@pytest.fixture
def connected(cluster: Any) -> Iterator[Any]:
    import ray

    yield cluster
    ray.shutdown()


def test_ray__two_nodes_make_the_same_files(
    connected: Any, real_plan: Plan, finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    make_clone(real_plan, str(tmp_path), runner_name="ray", address=connected.address)
    assert digests(tmp_path) == digests(finished[0])


def test_ray__a_relative_output_is_in_the_drivers_directory(
    connected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes were started in another working directory."""
    monkeypatch.chdir(tmp_path)
    builder = DigitsSD("c_cfg2", images_per_class=2, num_inference_steps=1, cache_dir=str(tmp_path))
    counts: list[int] = []
    builder.materialize("clone", runner_name="ray", address=connected.address, on_images=counts.append)
    assert list(verify_clone(str(tmp_path / "clone"))) == [] and sum(counts) == 20


def test_ray__a_shard_that_fails_is_named(connected: Any, faulty: tuple[Plan, Path], tmp_path: Path) -> None:
    plan, image = faulty
    image.write_bytes(b"x" * image.stat().st_size)
    with pytest.raises(FailedShardsError) as failed:
        make_clone(plan, str(tmp_path / "out"), runner_name="ray", address=connected.address)
    assert [failure.shard for failure in failed.value.failures] == [2]
    assert "cannot be read" in failed.value.failures[0].cause


def test_ray__an_actor_is_replaced_after_an_unexpected_failure(
    connected: Any, real_plan: Plan, finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    plan = BreaksProcess(real_plan.recipe, real_plan.num_rounds, str(tmp_path / "broken"))
    make_clone(plan, str(tmp_path / "out"), runner_name="ray", num_workers=1, address=connected.address)
    assert digests(tmp_path / "out") == digests(finished[0]) and (tmp_path / "broken").exists()


@dataclass(frozen=True)
class BreaksNode(Plan):
    """A plan that breaks the first node that makes one of its shards."""

    broken: str = ""
    """File with the id of that node."""

    def shard_samples(self, shard: int) -> list[Sample]:
        import ray

        node = ray.get_runtime_context().get_node_id()
        with contextlib.suppress(FileExistsError):
            Path(self.broken).touch(exist_ok=False)
            Path(self.broken).write_text(node)
        if Path(self.broken).read_text() == node:
            raise RuntimeError("CUDA error: uncorrectable ECC error encountered")
        return super().shard_samples(shard)


def test_ray__a_broken_node_gets_no_more_shards(connected: Any, real_plan: Plan, tmp_path: Path) -> None:
    plan = BreaksNode(real_plan.recipe, 24, str(tmp_path / "broken"))
    make_clone(plan, str(tmp_path / "out"), runner_name="ray", address=connected.address)
    make_clone(Plan(real_plan.recipe, 24), str(tmp_path / "alone"))
    assert digests(tmp_path / "out") == digests(tmp_path / "alone") and (tmp_path / "broken").exists()


def test_ray__a_lost_node_is_replaced_by_a_new_one(connected: Any, generated: Recipe, tmp_path: Path) -> None:
    plan = Plan(replace(generated, num_inference_steps=60), 8)
    make_clone(plan, str(tmp_path / "alone"))
    out = tmp_path / "out"
    thread = threading.Thread(
        target=make_clone, args=(plan, str(out)), kwargs={"runner_name": "ray", "address": connected.address}
    )
    thread.start()
    while len(list((out / "_making").rglob("*.parquet"))) < 2 and thread.is_alive():
        time.sleep(0.05)
    assert thread.is_alive() and not (out / "clone.json").exists()
    connected.remove_node(next(iter(connected.worker_nodes)), allow_graceful=False)
    connected.add_node(num_cpus=1)
    thread.join()
    assert digests(out) == digests(tmp_path / "alone")


def test_ray__a_wrong_address_is_reported_in_one_sentence(scans: Path, tmp_path: Path) -> None:
    make = [sys.executable, "-m", "builders", "make", "real_images/test", str(tmp_path / "out"), "--source"]
    options = [str(scans / "test"), "--runner", "ray", "--address", "127.0.0.1:1"]
    done = subprocess.run([*make, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "no Ray cluster at '127.0.0.1:1'" in done.stderr
    assert "Traceback" not in done.stderr
