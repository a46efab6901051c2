"""Times the training loop and bare forward + backward + step on the same model and batches, in turns.

python -m benchmarks.step
"""

import tempfile
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.pairs import ratios, spread, time_in_turns
from builders.networks.backbone import build_network
from fakeit_train.checkpoint import make_state
from fakeit_train.config import TrainConfig
from fakeit_train.data.loader import Batch
from fakeit_train.distributed import World
from fakeit_train.metrics_log import open_metrics_log
from fakeit_train.objectives.base import build_objective
from fakeit_train.optimizer import make_optimizer
from fakeit_train.settings import load_config
from fakeit_train.trainer import _Run
from tests.acceptance.record import record

NUM_STEPS, NUM_ROUNDS, NUM_CLASSES = 40, 9, 10
TARGET = 1.03
WORLD = World(0, 1, torch.device("cpu"))


def make_batch(config: TrainConfig) -> Batch:
    count = config.data.batch_size
    crops = [
        torch.randint(
            0, 256, (count, crops_of_kind.num_crops, crops_of_kind.size, crops_of_kind.size, 3), dtype=torch.uint8
        )
        for crops_of_kind in config.crops.kinds
    ]
    keys = [f"key_{number:08d}" for number in range(count)]
    return Batch(torch.randint(0, NUM_CLASSES, (count,)), keys, torch.full((count,), -1), crops)


def bare(config: TrainConfig, batch: Batch) -> None:
    network = build_network(config.backbone).to(memory_format=torch.channels_last)
    objective = build_objective(network, config).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for _ in range(NUM_STEPS):
        optimizer.zero_grad(set_to_none=True)
        loss, _ = objective(batch.crops, batch.labels, batch.prompt_ids)
        (loss / len(batch.labels)).backward()
        optimizer.step()


def loop(config: TrainConfig, batch: Batch, num_steps: int = NUM_STEPS) -> None:
    """Runs the loop of `train` with metrics and progress, but without the one checkpoint at the end."""

    def batches() -> Generator[Batch]:
        while True:
            yield batch

    objective = build_objective(build_network(config.backbone), config)
    objective.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    state = make_state(objective, make_optimizer(objective, config.optim), config, "cpu")
    with tempfile.TemporaryDirectory() as folder:
        run = _Run(config, WORLD, state, Path(folder), num_steps, num_steps)
        run._save = lambda step: None  # type: ignore[method-assign]
        run.steps(0, batches(), open_metrics_log(Path(folder), (), {}, 0))


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = load_config("digits", [])
    config = replace(config, backbone=replace(config.backbone, classes=tuple("abcdefghij")))
    batch = make_batch(config)
    found = time_in_turns({"bare": lambda: bare(config, batch), "loop": lambda: loop(config, batch)}, NUM_ROUNDS)
    against = ratios(found["loop"], found["bare"])
    record("step", "The training loop compared with bare steps", [
        f"`digits`: batches of {config.data.batch_size}, 1 + 8 crops, {NUM_STEPS} steps, one thread. Median (range)",
        f"over {NUM_ROUNDS} rounds, arms in turns; ratios are taken within a round. Both arms have the same network, crops and",
        "loss; bare steps are zero_grad, forward, backward and step.",
        "",
        "| arm | seconds |",
        "|---|---|",
        *(f"| {arm} | {spread(seconds)} |" for arm, seconds in found.items()),
        "",
        f"loop / bare: **{spread(against, 3)}** (required: at most {TARGET}).",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
