"""What only a GPU can show of training and evaluation: 16 bits, no waiting in a step, equal runs, compiled networks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from builders.format.manifest import Manifest
from builders.image_sets.clones import open_clone_images
from builders.networks.backbone import build_network
from fakeit_eval.features.extract import Loading, extract
from fakeit_eval.models import open_model
from fakeit_train.checkpoint import make_state
from fakeit_train.config import TrainConfig
from fakeit_train.data.loader import Batch
from fakeit_train.distributed import World
from fakeit_train.objectives.base import build_objective
from fakeit_train.optimizer import make_optimizer
from fakeit_train.precision import prepare_torch
from fakeit_train.settings import load_config
from fakeit_train.train_step import TrainStep
from fakeit_train.trainer import train
from tests.fakeit_train.test_trainer import SETTINGS, losses, run

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CLASSES = tuple(f"class_{number}" for number in range(100))


def train_step(config: TrainConfig, num_steps: int = 10) -> TrainStep:
    torch.manual_seed(0)
    prepare_torch(config, DEVICE.type)
    network = build_network(config.backbone).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    objective = build_objective(network, config).to(DEVICE)
    state = make_state(objective, make_optimizer(objective, config.optim), config, DEVICE.type)
    return TrainStep(config, World(0, 1, DEVICE), state, num_steps)


def flagship(*settings: str) -> TrainConfig:
    """Returns the paper's configuration; on a CPU with small crops of two images."""
    small = [] if DEVICE.type == "cuda" else ["data.batch_size=2", "crops.kinds.0.size=64", "crops.kinds.1.size=32"]
    config = load_config("imagenet_100_sd", ["data.batch_size=64", *small, *settings])
    return replace(config, backbone=replace(config.backbone, classes=CLASSES))


def batch_for(config: TrainConfig) -> Batch:
    generator, count = torch.Generator().manual_seed(0), config.data.batch_size
    crops = [
        torch.randint(0, 256, (count, kind.num_crops, kind.size, kind.size, 3), dtype=torch.uint8, generator=generator)
        for kind in config.crops.kinds
    ]
    labels = torch.randint(0, len(CLASSES), (count,), generator=generator)
    batch = Batch(labels, [], torch.full((count,), -1), crops)
    return batch.pin_memory() if DEVICE.type == "cuda" else batch


@contextmanager
def waiting_is_an_error() -> Iterator[None]:
    if DEVICE.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if DEVICE.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["bfloat16", "float16"] if DEVICE.type == "cuda" else ["float32"])
def test_train_gpu__a_resnet50_learns_on_nine_crops(precision: str) -> None:
    config = flagship(f"precision={precision}", "optim.warm_up=0.1", "optim.learning_rate=0.02")
    step, batch = train_step(config, 20), batch_for(config)
    found = [float(step(number, batch)[0]) for number in range(20)]
    assert np.isfinite(found).all() and found[-1] < found[0]


def test_train_gpu__a_step_never_waits_for_the_device() -> None:
    config = flagship("precision=bfloat16") if DEVICE.type == "cuda" else flagship()
    step, batch = train_step(config), batch_for(config)
    for number in range(3):
        step(number, batch)
    with waiting_is_an_error():
        step(3, batch)


def test_train_gpu__deterministic_runs_are_equal_also_when_resumed(
    finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    settings = [*SETTINGS, "deterministic=true"]
    weights = []
    for name in ("one", "two"):
        train(load_config("digits", settings), [str(finished[0])], tmp_path / name)
        weights.append(load_file(tmp_path / name / "backbone.safetensors"))
    process = run(tmp_path / "three", finished[0], "deterministic=true")
    while not list((tmp_path / "three" / "checkpoint").glob("step-*.json")) and process.poll() is None:
        pass
    process.kill()
    process.wait()
    assert run(tmp_path / "three", finished[0], "deterministic=true").wait() == 0
    weights.append(load_file(tmp_path / "three" / "backbone.safetensors"))
    assert all(torch.equal(weights[0][name], other[name]) for other in weights[1:] for name in other)


def test_train_gpu__a_compiled_network_learns_the_same(finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    if DEVICE.type != "cuda":
        pytest.skip("compiling for a CPU takes minutes")
    for name in ("true", "false"):
        config = load_config("digits", [*SETTINGS, f"compile={name}", "precision=float32"])
        train(config, [str(finished[0])], tmp_path / name)
    assert losses(tmp_path / "true") == pytest.approx(losses(tmp_path / "false"), rel=0.02)


def test_train_gpu__features_in_16_bits_are_close(finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    train(load_config("digits", SETTINGS), [str(finished[0])], tmp_path / "run")
    model, images = open_model(str(tmp_path / "run")), open_clone_images(str(finished[0]))
    found: list[Any] = [
        extract(model, images, Loading(cache=tmp_path, precision=name))[:] for name in ("float32", "bfloat16")
    ]
    assert np.abs(found[0] - found[1]).max() < 0.05 * np.abs(found[0]).max()


def test_train_gpu__two_gpus_with_synchronized_batch_norm_learn_as_one(
    finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("this machine has one GPU")
    for number in (1, 2):
        assert run(tmp_path / str(number), finished[0], "precision=float32", num_processes=number).wait() == 0
    assert losses(tmp_path / "2") == pytest.approx(losses(tmp_path / "1"), rel=1e-2)
