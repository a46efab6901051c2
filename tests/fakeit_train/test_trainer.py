"""Training runs of a few steps on real digits, in separate processes where a test needs them."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from builders.errors import UserError
from builders.format.manifest import Manifest
from builders.format.open_clone import open_clone
from builders.networks.backbone import build_network, load_backbone
from fakeit_train.checkpoint import has_checkpoint, make_state, newest_whole
from fakeit_train.crops.pipeline import make_pipelines
from fakeit_train.crops.random_values import random_values
from fakeit_train.data.loader import Batch
from fakeit_train.data.mixture import whole as whole_clone
from fakeit_train.distributed import World
from fakeit_train.objectives.base import build_objective
from fakeit_train.optimizer import make_optimizer
from fakeit_train.settings import load_config
from fakeit_train.train_step import TrainStep
from fakeit_train.trainer import _Run, train

SETTINGS = [
    "num_epochs=3",
    "data.batch_size=20",
    "data.num_workers=1",
    "log_keys=true",
    "log_every=1",
    "checkpoint_every=2",
]


def run(
    out: Path, data: Path, *more: str, num_processes: int = 1, stderr: int | None = None, config: str = "digits"
) -> subprocess.Popen[bytes]:
    launch = [sys.executable, "-m"]
    if num_processes > 1:
        launch += ["torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}", "-m"]
    command = [
        *launch,
        "fakeit_train",
        config,
        "--data",
        str(data),
        "--out",
        str(out),
        "--resume",
        "--set",
        *SETTINGS,
        *more,
    ]
    return subprocess.Popen(command, start_new_session=True, stderr=stderr)


def wait_for_a_checkpoint(out: Path) -> None:
    deadline = time.monotonic() + 120
    while not has_checkpoint(out / "checkpoint") and time.monotonic() < deadline:
        time.sleep(0.02)


def seen_batches(out: Path) -> list[list[str]]:
    """Returns the keys of every global batch: the slices of all ranks, in the order of ranks."""
    ranks = [
        {line["step"]: line["keys"] for line in map(json.loads, path.read_text().splitlines())}
        for path in sorted(out.glob("keys-*.jsonl"))
    ]
    return [[key for rank in ranks for key in rank[step]] for step in sorted(ranks[0])]


@pytest.fixture(scope="module")
def whole(finished: tuple[Path, Manifest], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of an uninterrupted run in one process."""
    out = tmp_path_factory.mktemp("run") / "whole"
    train(load_config("digits", SETTINGS), [str(finished[0])], out)
    return out


def test_trainer__reads_the_batches_of_the_training_order(whole: Path, finished: tuple[Path, Manifest]) -> None:
    clone = open_clone(finished[0])
    order = whole_clone(clone).order(load_config("digits", SETTINGS).data)
    num_steps = 3 * order.batches_per_epoch
    assert seen_batches(whole) == [[clone.key(n) for n, _ in order.global_batch(step)] for step in range(num_steps)]


def test_trainer__exports_a_network_that_can_be_loaded(whole: Path, finished: tuple[Path, Manifest]) -> None:
    backbone, network = load_backbone(whole)
    assert list(backbone.classes) == finished[1].label_names
    assert backbone.feature_size == 192 and backbone.trained_on == "real_images/test"
    assert sum(p.numel() for p in network.parameters()) > 100_000


def test_trainer__a_killed_and_resumed_run_ends_with_the_same_weights(
    whole: Path, finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    process = run(out, finished[0])
    wait_for_a_checkpoint(out)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert train(load_config("digits", SETTINGS), [str(finished[0])], out, resume=True).is_finished
    assert seen_batches(out) == seen_batches(whole)
    weights, expected = load_file(out / "backbone.safetensors"), load_file(whole / "backbone.safetensors")
    assert all((weights[name] == expected[name]).all() for name in expected)
    losses = [
        [json.loads(line)["loss"] for line in (o / "metrics.jsonl").read_text().splitlines()] for o in (out, whole)
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("when", ["training", pytest.param("testing", marks=pytest.mark.long)])
def test_trainer__a_stop_signal_saves_a_checkpoint_and_exits_with_0(
    when: str, finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    out = tmp_path / "stopped"
    settings = ["num_epochs=60", "checkpoint_every=100000"]
    if when == "testing":
        # Frequent and slow validation makes it likely that the signal arrives during validation.
        settings += [f"validation.data={finished[0]}", "validation.every=2", "validation.batch_size=1"]
    process = run(out, finished[0], *settings)
    deadline = time.monotonic() + 120
    while not ((out / "metrics.jsonl").exists() and losses(out)) and time.monotonic() < deadline:
        time.sleep(0.02)
    # Clusters signal the whole process group, including the loader's workers.
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait() == 0
    assert not (out / "backbone.json").exists()
    assert newest_whole(out / "checkpoint") == len(losses(out))


LAYER_NORM = 'backbone.arch_options={"layers": [1, 1, 1, 1], "channels": [32, 32, 64, 64], "norm_layer": "layernorm2d"}'
"""Layer norm, because batch norm is synchronized on GPUs only: on a CPU, each rank would see half of the batch."""


@pytest.mark.parametrize(
    ("optimizer", "tolerance"),
    [
        pytest.param("momentum", 1e-3, marks=pytest.mark.long),
        pytest.param("adamw", 1e-3, marks=pytest.mark.long),
        ("muon", 1e-2),
    ],
)
def test_trainer__two_ranks_read_and_learn_the_same_as_one(
    optimizer: str, tolerance: float, whole: Path, finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    """Sums in another order differ in the last bits. Muon's update amplifies that, because it inverts small singular values."""
    rate = "0.02" if optimizer == "momentum" else "0.001"
    settings = (LAYER_NORM, f"optim.name={optimizer}", f"optim.learning_rate={rate}", "num_epochs=7")
    assert run(tmp_path / "two", finished[0], *settings, num_processes=2).wait() == 0
    train(load_config("digits", [*SETTINGS, *settings]), [str(finished[0])], tmp_path / "one")
    assert len(list((tmp_path / "two").glob("keys-*.jsonl"))) == 2
    assert seen_batches(tmp_path / "two") == seen_batches(tmp_path / "one")
    assert seen_batches(tmp_path / "one")[:9] == seen_batches(whole)
    one, two = (logged(tmp_path / name) for name in ("one", "two"))
    assert [line["learning_rate"] for line in one] == [line["learning_rate"] for line in two]
    assert len(one) == 21 and min(line["loss"] for line in one[-3:]) < one[0]["loss"]
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=tolerance)


def test_trainer__another_run_is_not_overwritten(whole: Path, finished: tuple[Path, Manifest]) -> None:
    config = load_config("digits", SETTINGS)
    with pytest.raises(UserError, match="already holds a run"):
        train(config, [str(finished[0])], whole)
    with pytest.raises(UserError, match=r"different num_epochs, optim\.momentum;"):
        train(
            load_config("digits", [*SETTINGS, "num_epochs=4", "optim.momentum=0"]),
            [str(finished[0])],
            whole,
            resume=True,
        )
    again = train(
        load_config("digits", [*SETTINGS, "data.num_workers=0", "log_every=7"]), [str(finished[0])], whole, resume=True
    )
    assert again.is_finished


def test_trainer__a_failed_first_start_does_not_block_the_folder(
    finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    out, short = tmp_path / "run", [*SETTINGS, "num_epochs=1", "data.num_workers=0"]
    with pytest.raises(UserError, match=r"init 'nowhere\.pth' is neither"):
        train(load_config("digits", [*short, "init=nowhere.pth"]), [str(finished[0])], out)
    assert train(load_config("digits", [*short, "data.seed=20261123"]), [str(finished[0])], out).is_finished


def test_trainer__a_run_with_a_removed_setting_is_another_run(
    whole: Path, finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    config = load_config("digits", SETTINGS)
    config = replace(config, backbone=replace(config.backbone, arch_options={"layers": [1, 1, 1, 1]}))
    with pytest.raises(
        UserError, match=r"different backbone\.arch_options\.channels, backbone\.arch_options\.stem_width;"
    ):
        train(config, [str(finished[0])], out, resume=True)


def test_trainer__saves_without_momentum(finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    config = load_config("digits", [*SETTINGS, "optim.momentum=0", "num_epochs=1", "data.num_workers=0"])
    assert train(config, [str(finished[0])], tmp_path / "run").is_finished
    assert train(config, [str(finished[0])], tmp_path / "run", resume=True).is_finished


def test_trainer__a_batch_too_small_for_the_ranks_is_reported(finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.batch_size 1 is too small"):
        train(load_config("digits", [*SETTINGS, "data.batch_size=1"]), [str(finished[0])], tmp_path / "run")


def test_trainer__a_non_finite_loss_ends_the_run_and_saves_the_keys(
    finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    rates = ("optim.learning_rate=1e30", "log_every=2", "checkpoint_every=50", "data.num_workers=0")
    config = load_config("digits", [*SETTINGS, *rates])
    with pytest.raises(UserError, match=r"the loss is (nan|inf) after step 2"):
        train(config, [str(finished[0])], tmp_path / "run")
    keys = json.loads((tmp_path / "run" / "not-finite-0.json").read_text())
    assert {step: len(batch) for step, batch in keys.items()} == {"1": 20, "2": 20}
    assert not (tmp_path / "run" / "checkpoint").exists()


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize(("damage", "words"), [("cut", "is cut"), ("label", r"label \d of .* is out of range 0 to 3")])
def test_trainer__a_damaged_clone_is_reported_in_one_sentence(
    clone: Path, tmp_path: Path, num_workers: int, damage: str, words: str
) -> None:
    if damage == "cut":
        shard = next((clone / "data/000").glob("*.tar"))
        shard.write_bytes(shard.read_bytes()[:3000])
    else:
        manifest = json.loads((clone / "clone.json").read_text())
        manifest["label_names"] = manifest["label_names"][:4]
        (clone / "clone.json").write_text(json.dumps(manifest))
    config = load_config("digits", [*SETTINGS, f"data.num_workers={num_workers}"])
    with pytest.raises(UserError, match=words) as message:
        train(config, [str(clone)], tmp_path / "run")
    assert "\n" not in str(message.value)


def logged(out: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if "loss" in line]


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in logged(out)]


def gradients(num_micro_batches: int, tmp_path: Path) -> list[torch.Tensor]:
    """Returns the gradients of one batch of random crops, split into micro-batches.

    The network has layer norm, because the result of batch norm depends on the micro-batches.
    """
    options = {"layers": [1, 1, 1, 1], "channels": [32, 32, 64, 64], "stem_width": 32, "norm_layer": "layernorm2d"}
    config = load_config("digits", ["data.batch_size=20", f"optim.accumulation={num_micro_batches}"])
    config = replace(config, backbone=replace(config.backbone, arch_options=options, classes=tuple("abcd")))
    torch.manual_seed(0)
    crops = [torch.randint(0, 256, (20, n, side, side, 3), dtype=torch.uint8) for n, side in ((1, 32), (8, 16))]
    batch = Batch(torch.randint(0, 4, (20,)), [], torch.full((20,), -1), crops)
    network = build_network(config.backbone)
    objective = build_objective(network, config)
    state = make_state(objective, make_optimizer(objective, config.optim), config, "cpu")
    TrainStep(config, World(0, 1, torch.device("cpu")), state, 1).backward(batch)
    return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]


def test_trainer__micro_batches_have_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    for whole, split in zip(gradients(1, tmp_path), gradients(3, tmp_path), strict=True):
        assert torch.allclose(whole, split, rtol=1e-3, atol=1e-5 * float(whole.abs().max()))


MIXED = ["augmentation=plain", "mixing.mixup=0.8", "mixing.cutmix=1", "crops.rand_augment=2", "crops.erasing=0.5"]


@pytest.mark.parametrize("settings", [["precision=float16"], ["precision=bfloat16"], ["label_smoothing=0.1"], MIXED])
def test_trainer__options_change_the_loss_and_survive_a_resume(
    settings: list[str], finished: tuple[Path, Manifest], whole: Path, tmp_path: Path
) -> None:
    short = ["num_epochs=1", "checkpoint_every=1", "data.num_workers=0"]
    config = load_config("digits", [*SETTINGS, *short, *settings, "optim.ema=0.8"])
    train(config, [str(finished[0])], tmp_path / "run")
    assert losses(tmp_path / "run")[0] != losses(whole)[0]
    cut = tmp_path / "cut"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fakeit_train.trainer._Run.step", _killed_at(2))
        with pytest.raises(KeyboardInterrupt):
            train(config, [str(finished[0])], cut)
    train(config, [str(finished[0])], cut, resume=True)
    assert len(losses(cut)) == len(losses(tmp_path / "run"))
    # In float16, the order of oneDNN's sums differs from run to run.
    assert losses(cut) == pytest.approx(
        losses(tmp_path / "run"), rel=1e-2 if "float16" in settings[0] and "bfloat" not in settings[0] else 0
    )


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_trainer__any_optimizer_killed_and_resumed_ends_with_the_same_weights(
    name: str, finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    short = [
        "num_epochs=2",
        "checkpoint_every=1",
        "data.num_workers=0",
        f"optim.name={name}",
        "optim.learning_rate=0.001",
    ]
    config = load_config("digits", [*SETTINGS, *short])
    train(config, [str(finished[0])], tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fakeit_train.trainer._Run.step", _killed_at(3))
        with pytest.raises(KeyboardInterrupt):
            train(config, [str(finished[0])], tmp_path / "cut")
    train(config, [str(finished[0])], tmp_path / "cut", resume=True)
    weights, expected = (load_file(tmp_path / run / "backbone.safetensors") for run in ("cut", "run"))
    assert all(torch.equal(weights[key], expected[key]) for key in expected)


def test_trainer__the_head_alone_is_trained(finished: tuple[Path, Manifest], whole: Path, tmp_path: Path) -> None:
    settings = [*SETTINGS, "num_epochs=1", "data.num_workers=0", "optim.layers=head", f"init={whole}"]
    train(load_config("digits", settings), [str(finished[0])], tmp_path / "run")
    before, after = (load_file(run / "backbone.safetensors") for run in (whole, tmp_path / "run"))
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"fc.weight"}


def test_trainer__metrics_say_accuracy_gradient_and_epoch(whole: Path) -> None:
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["epoch"] == 3 and all(0 <= line["train_top1"] <= 100 for line in lines)
    assert all(line["gradient_norm"] > 0 for line in lines)


def test_trainer__an_objective_of_the_users_own_file(finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("""
from fakeit_train.objectives.base import Objective
import torch

class Mine(Objective):
    def __init__(self, network, backbone):
        super().__init__(network, backbone)
        self.scale = torch.nn.Linear(1, 1)

    def forward(self, crops, labels, prompt_ids):
        assert (prompt_ids == -1).all()
        loss = self.scale(self.outputs(crops[0]).square().mean()[None]).sum() * len(labels)
        return loss, {"mine": loss.detach()}

def build(network, backbone, config):
    return Mine(network, backbone)
""")
    settings = [*SETTINGS, "num_epochs=1", "data.num_workers=0", f"objective={tmp_path / 'mine.py'}"]
    train(load_config("digits", settings), [str(finished[0])], tmp_path / "run")
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert line["mine"] == pytest.approx(line["loss"])
    names = load_file(next((tmp_path / "run" / "checkpoint").glob("*.safetensors")))
    assert "objective.scale.weight" in names and "optimizer.scale.weight/momentum_buffer" in names
    assert "scale.weight" not in load_file(tmp_path / "run" / "backbone.safetensors")
    (tmp_path / "mine.py").write_text("def build(network, backbone, config):\n    return network\n")
    with pytest.raises(UserError, match="builds a ResNet; return an Objective"):
        train(load_config("digits", settings), [str(finished[0])], tmp_path / "other")


def _killed_at(number: int) -> Callable[..., Any]:
    real = _Run.step

    def step(self: _Run, step: int, batch: Batch) -> Any:
        if step == number:
            raise KeyboardInterrupt
        return real(self, step, batch)

    return step


def test_trainer__a_folder_has_one_run_at_a_time(
    finished: tuple[Path, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After torchrun is killed its ranks go on, so a second run would write the same checkpoints."""
    monkeypatch.setattr("fakeit_train.run_folder.SECONDS_OF_A_LOCK", 0.2)
    process = run(tmp_path, finished[0], "num_epochs=30", "data.num_workers=0")
    try:
        wait_for_a_checkpoint(tmp_path)
        with pytest.raises(UserError, match=r"another process trains in '.*'; let it end, or choose another --out"):
            train(load_config("digits", [*SETTINGS, "num_epochs=30"]), [str(finished[0])], tmp_path, resume=True)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    config = load_config("digits", [*SETTINGS, "num_epochs=30", "data.num_workers=0"])
    # The system released the lock of the killed process.
    assert train(config, [str(finished[0])], tmp_path, resume=True).is_finished


@pytest.mark.long
def test_trainer__a_rank_that_dies_ends_the_run_in_seconds(finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = run(out, finished[0], "num_epochs=500", num_processes=2, stderr=subprocess.PIPE)
    wait_for_a_checkpoint(out)
    ranks = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout.split()
    os.kill(int(ranks[-1]), signal.SIGKILL)
    died = time.monotonic()
    _, message = process.communicate(timeout=60)
    assert process.returncode not in (None, 0) and time.monotonic() - died < 30
    assert b"another rank of the run has ended" in message
    assert b"in _allreduce" not in message and has_checkpoint(out / "checkpoint")


def test_trainer__trains_on_the_selected_samples_of_several_clones(
    finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    settings = [
        "num_epochs=1",
        "data.num_workers=0",
        "data.weights=3,1",
        "data.where=index < 4",
        "backbone.head=cosine",
    ]
    config = load_config("digits", [*SETTINGS, *settings])
    train(config, [str(finished[0])] * 2, tmp_path / "run")
    batches = seen_batches(tmp_path / "run")
    assert {sum(key.startswith("1/") for key in batch) for batch in batches} == {15}
    assert all(int(key.rpartition("_")[2]) < 4 for batch in batches for key in batch)
    described = json.loads((tmp_path / "run" / "config.json").read_text())
    assert described["data_urls"] == [str(finished[0])] * 2 and len(described["clone_digests"]) == 2
    with pytest.raises(UserError, match=r"holds a run with different .*data\.weights, clone_digests;"):
        train(replace(config, data=replace(config.data, weights=())), [str(finished[0])], tmp_path / "run", resume=True)


def test_trainer__starts_from_the_weights_of_another_run(
    whole: Path, finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    settings = [*SETTINGS, "num_epochs=1", "data.num_workers=0", f"init={whole}", "optim.learning_rate=0"]
    # The folder is that of a run that was killed while it wrote its first checkpoint.
    (tmp_path / "run" / "checkpoint").mkdir(parents=True)
    train(load_config("digits", settings), [str(finished[0])], tmp_path / "run", resume=True)
    before, after = (load_file(out / "backbone.safetensors") for out in (whole, tmp_path / "run"))
    assert all(
        (before[name] == after[name]).all() for name in before if "running" not in name and "tracked" not in name
    )


GOLDEN = Path(__file__).parent / "golden_run.json"
"""`python -m tests.fakeit_train.test_trainer` regenerates this file."""
NUM_GOLDEN = 50


def golden_run(clone: Path, out: Path) -> dict[str, Any]:
    """Returns keys, learning rate, mean levels of the crops, and loss of each of 50 steps in one CPU process.

    The result also has a digest of the crop parameters of the first batch.
    """
    settings = ["num_epochs=100", "data.batch_size=20", "data.num_workers=0", "log_every=1", "optim.learning_rate=0.02"]
    config = load_config("digits", settings)
    steps: list[tuple[list[str], float, list[float], float]] = []
    real = _Run.step

    def step(self: _Run, number: int, batch: Batch) -> Any:
        if number == NUM_GOLDEN:
            raise KeyboardInterrupt
        loss, rate = real(self, number, batch)
        steps.append((batch.keys, rate, [float(crops.float().mean()) for crops in batch.crops], float(loss)))
        return loss, rate

    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fakeit_train.trainer._Run.step", step)
        with pytest.raises(KeyboardInterrupt):
            train(config, [str(clone)], out)
    torch.set_num_threads(num_threads)
    keys, rates, levels, losses = zip(*steps, strict=True)
    pipelines = [one for one in make_pipelines(config.crops) for _ in range(one.kind.num_crops)]
    parameters = [
        pipeline.sample(32, 32, random_values(config.data.seed, 0, key, number))
        for key in keys[0]
        for number, pipeline in enumerate(pipelines)
    ]
    numbers = [[round(value, 9) for value in flat(asdict(crop))] for crop in parameters]
    return {
        "keys": hashlib.sha256(json.dumps(keys).encode()).hexdigest(),
        "draws": hashlib.sha256(json.dumps(numbers).encode()).hexdigest(),
        "rates": rates,
        "levels": levels,
        "losses": losses,
    }


def flat(value: Any) -> list[float]:
    """Returns all numbers in a nested value, in order."""
    if isinstance(value, dict):
        value = list(value.values())
    return [number for one in value for number in flat(one)] if isinstance(value, list | tuple) else [float(value)]


def test_trainer__golden_run(finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    """Batches, crop parameters and learning rates are exactly the golden ones.

    Kernels differ between processors in the last bits, and training amplifies these differences. So the first losses
    must be close to the golden ones, and later losses on average.
    """
    found, golden = golden_run(finished[0], tmp_path / "run"), json.loads(GOLDEN.read_text())
    assert (found["keys"], found["draws"]) == (golden["keys"], golden["draws"])
    assert found["rates"] == pytest.approx(golden["rates"], rel=1e-12)
    assert np.abs(np.subtract(found["levels"], golden["levels"])).max() < 0.5  # of 255
    assert found["losses"][:5] == pytest.approx(golden["losses"][:5], rel=1e-5)
    for steps in (slice(5, 20), slice(20, 50)):
        assert np.mean(found["losses"][steps]) == pytest.approx(np.mean(golden["losses"][steps]), rel=0.02)


if __name__ == "__main__":
    import tempfile

    from builders.classes.class_options import ClassOptions
    from builders.embedded.digits import write_class_folders
    from builders.make_clone import make_clone
    from builders.planning.plan import Plan
    from builders.real_images import RealImages

    with tempfile.TemporaryDirectory() as folder:
        scans = Path(folder) / "scans"
        write_class_folders(scans)
        recipe = RealImages.recipe("test", ClassOptions(source=str(scans / "test")), shard_size=20, batch_size=8)
        make_clone(Plan(recipe, 8), f"{folder}/clone")
        golden = golden_run(Path(folder) / "clone", Path(folder) / "run")
        lines = [f"{json.dumps(name)}: {json.dumps(values)}" for name, values in golden.items()]
        GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
