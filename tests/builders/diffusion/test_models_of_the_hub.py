"""Tests models that come from a Hub, through the stock client."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fit_lora import fit_lora, slanted_digits
from tests.loopback.model_hub import COMMIT, ModelHub
from tests.loopback.server import Fault, running
from tests.tiny_families import write_tiny_family

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def turbo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_family("SDXL Turbo", tmp_path_factory.mktemp("model") / "turbo")


def build(hub: ModelHub, home: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-m", "builders", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_hub__a_model_gets_the_defaults_of_its_family(turbo: Path, tmp_path: Path) -> None:
    """Its id is not in the table, so the configuration is read from the Hub."""
    (tmp_path / "classes.txt").write_text("one\ntwo\n")
    options = ("--source", tmp_path / "classes.txt", "--images-per-class", 2, "--model", "someone/fast")
    with running(ModelHub("someone/fast", turbo)) as hub:
        planned = build(hub, tmp_path / "home", "plan", "custom_sd/c_cfg2", *options)
        assert "model someone/fast: SDXL Turbo, found by its class and scheduler._class_name" in planned.stdout
        assert "settings: 128x128, 1 steps of the model's own scheduler, guidance 2, float16" in planned.stdout, planned
        made = build(
            hub, tmp_path / "home", "make", "custom_sd/c_cfg2", tmp_path / "out", *options, "--guidance-scale", 1
        )
        assert made.returncode == 0, made.stderr
    recipe = json.loads((tmp_path / "out/clone.json").read_text())["recipe"]
    assert (recipe["revision"], recipe["scheduler"]) == (COMMIT, "EulerAncestralDiscreteScheduler")
    assert (recipe["width"], recipe["height"], recipe["num_inference_steps"]) == (128, 128, 1)
    assert (recipe["guidance_scale"], recipe["dtype"]) == (1.0, "float16")


def test_hub__a_gated_model_is_one_sentence(turbo: Path, tmp_path: Path) -> None:
    with running(ModelHub("someone/gated", turbo, is_gated=True)) as hub:
        ended = build(hub, tmp_path, "make", "digits_sd/c_cfg2", tmp_path / "out", "--model", "someone/gated")
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.endswith("accept its terms at https://huggingface.co/someone/gated and log in with 'hf auth login'")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("file", ["model_index.json", "unet/config.json"])
def test_hub__settings_are_never_guessed_when_the_hub_fails(turbo: Path, tmp_path: Path, file: str) -> None:
    with running(ModelHub("someone/fast", turbo)) as hub:
        hub.traffic.choose = lambda method, path: Fault(status=500) if path.endswith(file) else None
        ended = build(hub, tmp_path, "plan", "digits_sd/c_cfg2", "--model", "someone/fast")
    assert ended.returncode in (2, 75) and "the configuration of 'someone/fast' cannot be read" in ended.stderr


def test_hub__an_adapter_is_pinned_by_its_commit_and_downloaded_by_workers(tmp_path: Path) -> None:
    images, prompts = slanted_digits()
    fit_lora(tmp_path / "lora/weights/slant.safetensors", images[:8], prompts[:8], num_steps=1)
    (tmp_path / "lora/README.md").write_text("---\nlicense: cc0-1.0\n---\n")
    make = ("make", "digits_sd/c_cfg2", "--images-per-class", 1, "--adapter")
    with running(ModelHub("someone/slant", tmp_path / "lora", license="cc0-1.0")) as hub:
        home = tmp_path / "home"
        for name, adapter in (
            ("one", "someone/slant=0.5"),
            ("two", f"someone/slant/weights/slant.safetensors@{COMMIT}=0.5"),
        ):
            ended = build(hub, home, *make[:2], tmp_path / name, *make[2:], adapter)
            assert ended.returncode == 0, ended.stderr
        other = build(hub, home, *make[:2], tmp_path / "out", *make[2:], "someone/slant/none.safetensors")
        assert other.returncode == 2 and "'someone/slant' has no file 'none.safetensors'" in other.stderr
    recipes = [json.loads((tmp_path / name / "clone.json").read_text())["recipe"] for name in ("one", "two")]
    assert recipes[0] == recipes[1]
    assert recipes[0]["adapters"] == [f"someone/slant/weights/slant.safetensors@{COMMIT}=0.5"]
    assert recipes[0]["adapter_licenses"] == ["cc0-1.0"]
    again = build(hub, home, "redo", tmp_path / "one", "n13742358_00000000")
    assert again.stdout == "n13742358_00000000: identical\n", again
