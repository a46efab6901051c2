"""Pushes trained networks to a Hub on 127.0.0.1, with the stock client; timm loads them from there by one line."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from builders.errors import UserError
from builders.networks.backbone import Backbone, build_network, save_backbone
from fakeit_train.push_model import _settings, as_timm_model, push_model
from tests.loopback.hub import Hub, hub_environment
from tests.loopback.server import running

SMALL = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16], "stem_width": 8}
TIMM = Backbone(
    library="timm", arch="resnet18", arch_options=SMALL, input_size=32, classes=("n1", "n2", "n3"),
    class_names=("one", "two", "three"), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), trained_on="digits_sd/c_cfg2",
)  # fmt: skip
TORCHVISION = replace(TIMM, library="torchvision", arch_options={}, head_bias=True)
LOAD = """
import sys, timm, torch
model = timm.create_model("hf-hub:user/net", pretrained=True).eval()
data = timm.data.resolve_data_config({}, model=model)
torch.save([model(torch.ones(2, 3, 32, 32)).detach(), data, model.pretrained_cfg["label_names"]], sys.argv[1])
"""


def finished_run(out: Path, backbone: Backbone) -> torch.nn.Module:
    torch.manual_seed(0)
    network = build_network(backbone).eval()
    out.mkdir()
    save_backbone(out, backbone, network)
    settings = {
        "data_urls": ["hf://datasets/user/digits-sd", "/home/someone/real"],
        "init": "/home/someone/run7",
        "objective": "/home/someone/own.py",
        "data": {"cache_dir": "/home/someone/cache", "exclude": ""},
        "validation": {"data": "/home/someone/val"},
    }
    (out / "config.json").write_text(json.dumps(settings))
    (out / "results").mkdir()
    result = {"task": "test", "data": {"name": "digits_clean"}, "value": 97.153, "unit": "% top-1"}
    (out / "results" / "test.json").write_text(json.dumps(result))
    return network


@pytest.mark.parametrize(
    "backbone", [TIMM, pytest.param(TORCHVISION, marks=pytest.mark.long)], ids=["timm", "torchvision"]
)
def test_push_model__timm_loads_it_by_one_line(backbone: Backbone, tmp_path: Path) -> None:
    network = finished_run(tmp_path / "run", backbone)
    with running(Hub(tmp_path / "hub")) as hub:
        environment = hub_environment(hub, tmp_path / "home")
        command = [sys.executable, "-m", "fakeit_train", "push", str(tmp_path / "run"), "user/net"]
        pushed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert pushed.returncode == 0, pushed.stderr
        assert pushed.stdout.splitlines()[-1] == 'timm.create_model("hf-hub:user/net", pretrained=True)'
        subprocess.run([sys.executable, "-c", LOAD, str(tmp_path / "loaded")], env=environment, check=True)
        files = hub.files("user/net")
    outputs, data, labels = torch.load(tmp_path / "loaded", weights_only=False)
    assert torch.allclose(outputs, network(torch.ones(2, 3, 32, 32)), atol=1e-5)
    assert (data["input_size"], tuple(data["mean"]), data["crop_pct"]) == ((3, 32, 32), backbone.mean, 1.0)
    assert data["interpolation"] == "bicubic" and list(labels) == ["n1", "n2", "n3"]
    card = files["README.md"].decode()
    assert "| test | digits_clean | 97.15 % top-1 |" in card and "- user/digits-sd" in card
    assert "https://huggingface.co/datasets/user/digits-sd" in card
    assert not any(b"/home/someone" in content for content in files.values())


def test_push_model__the_best_network_has_the_settings_of_its_run(tmp_path: Path) -> None:
    finished_run(tmp_path / "run", TIMM)
    (tmp_path / "run" / "best").mkdir()
    assert _settings(tmp_path / "run" / "best") == _settings(tmp_path / "run")


def test_push_model__what_timm_cannot_load_is_refused(tmp_path: Path) -> None:
    for backbone, words in (
        (replace(TIMM, head="cosine"), "timm has no cosine classifier"),
        (replace(TORCHVISION, arch="regnet_y_400mf"), "timm cannot load 'regnet_y_400mf' of torchvision"),
    ):
        with pytest.raises(UserError, match=words):
            as_timm_model(backbone, build_network(backbone).eval())


def test_push_model__a_refusal_of_the_hub_is_one_sentence(tmp_path: Path) -> None:
    finished_run(tmp_path / "run", TIMM)
    with running(Hub(tmp_path / "hub")) as hub:
        environment = hub_environment(hub, tmp_path / "home", token="hf_wrong")
        command = [sys.executable, "-m", "fakeit_train", "push", str(tmp_path / "run"), "user/net"]
        refused = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and len(refused.stderr.strip().splitlines()) == 1
    assert "fakeit-train: the Hub refuses 'user/net' (401" in refused.stderr
    with pytest.raises(UserError, match="no trained backbone in"):
        push_model(tmp_path, "user/net")
