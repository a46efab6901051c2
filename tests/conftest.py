"""Fixtures of all tests: handwritten digits, a tiny random Stable Diffusion in the real layout, and small clones."""

import atexit
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

# Set before any import reads them: the tests use their own caches and no network.
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="fakeit-hf-")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["FAKEIT_CACHE"] = tempfile.mkdtemp(prefix="fakeit-cache-")
# torch.compile shares its kernels among all runs of a user, and kernels for other processor settings crash.
os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(prefix="fakeit-inductor-")
os.environ["OMP_NUM_THREADS"] = "1"

import hypothesis
import pytest

from builders.classes.class_list import ClassEntry
from builders.classes.class_options import ClassOptions
from builders.format.manifest import Manifest
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
from tests.loopback.hub import Hub
from tests.loopback.server import running
from tests.tiny_pipeline import write_tiny_checker, write_tiny_pipeline
from tests.wordnet import DEBIAN, write_nltk_data

for name in ("HF_HOME", "FAKEIT_CACHE", "TORCHINDUCTOR_CACHE_DIR"):
    atexit.register(shutil.rmtree, os.environ[name], ignore_errors=True)

CLASSES = tuple(
    ClassEntry(wnid=wnid, name=name, hypernym="digit", definition="a number", base_count=count)
    for wnid, name, count in (("n01", "one, 1", 6), ("n02", "two, 2", 4), ("n03", "three, 3", 5))
)


# Tests use fixed examples, because a random failure would block unrelated changes. The fuzzing scripts vary theirs.
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")

LONG_FIXTURES = {"s3", "browser", "cluster"}
"""Fixtures that take longer to start than most tests."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if LONG_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.long)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fails a session in CI if a test was skipped, because the set-up is then incomplete."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and exitstatus == 0 and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session", autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """Kills child processes that are left, since one that ignores signals would keep the tests from ending."""
    yield
    left = multiprocessing.active_children()
    for process in left:
        process.kill()
    assert not left


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with class folders of the real digits, in `train` and `test`."""
    from builders.embedded.digits import write_class_folders

    out = tmp_path_factory.mktemp("scans")
    write_class_folders(out)
    return out


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a Stable Diffusion with random weights that generates images of 16x16 pixels."""
    out = tmp_path_factory.mktemp("pipeline") / "tiny-sd"
    write_tiny_pipeline(out)
    return out


@pytest.fixture(scope="session")
def checked_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the tiny pipeline with a safety checker that flags about a third of its images."""
    out = tmp_path_factory.mktemp("pipeline") / "checked-sd"
    write_tiny_pipeline(out)
    write_tiny_checker(out)
    return out


@pytest.fixture(scope="session")
def nltk_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with WordNet 3.0 for nltk, from Debian's files."""
    import nltk

    if not DEBIAN.exists():
        pytest.skip("WordNet 3.0 is not installed; run 'make system'")
    out = tmp_path_factory.mktemp("nltk")
    write_nltk_data(out)
    nltk.data.path.insert(0, str(out))
    return out


@pytest.fixture
def recipe() -> Recipe:
    """Returns a recipe of three classes of unequal size, in shards of about six images."""
    return Recipe(name="test/tiny", classes=CLASSES, width=16, height=16, shard_size=6, num_inference_steps=2)


EXECUTION = Execution(batch_size=4)
"""Execution with which tests generate images of the tiny pipeline."""


@pytest.fixture
def generated(recipe: Recipe, tiny_pipeline: Path) -> Recipe:
    """Returns the recipe with the tiny pipeline as its model."""
    from builders.engines.base import pin_model

    return pin_model(replace(recipe, model=str(tiny_pipeline)))


@pytest.fixture(scope="session")
def real_plan(scans: Path) -> Plan:
    """Returns a plan of real digits of the test split, eight of each class, in shards of twenty."""
    from builders.real_images import RealImages

    return Plan(RealImages.recipe("test", ClassOptions(source=str(scans / "test")), shard_size=20), 8)


@pytest.fixture(scope="session")
def finished(real_plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Manifest]]:
    """Returns a finished clone of `real_plan`, which tests must not change."""
    from builders.make_clone import make_clone

    out = tmp_path_factory.mktemp("clone") / "digits"
    manifest = make_clone(real_plan, str(out))
    assert manifest is not None
    yield out, manifest


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """Returns an empty Hub on 127.0.0.1. `hub_environment` directs the real clients to it."""
    with running(Hub(tmp_path / "hub")) as server:
        yield server


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """Returns the URL of an empty bucket on a local S3 server."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="clones")
        yield "s3://clones"
    server.stop()


@pytest.fixture
def clone(finished: tuple[Path, Manifest], tmp_path: Path) -> Path:
    """Returns a copy of the finished clone, which tests may change."""
    return Path(shutil.copytree(finished[0], tmp_path / "clone"))


@pytest.fixture(scope="session")
def siblings_clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a clone of digits with four images of each prompt, which tests must not change."""
    from tests.fakeit_train.siblings_clone import make_siblings_clone

    return make_siblings_clone(tmp_path_factory.mktemp("clone"))
