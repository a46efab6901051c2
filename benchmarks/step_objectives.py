"""Times the training loop with each objective beside bare steps, in turns, and tells the memory that each takes.

python -m benchmarks.step_objectives
"""

import subprocess
import sys
from dataclasses import replace

import torch

from benchmarks.pairs import ratios, spread, time_in_turns
from benchmarks.step import loop, make_batch
from builders.networks.backbone import build_network
from fakeit_train.config import TrainConfig
from fakeit_train.data.loader import Batch
from fakeit_train.objectives.base import build_objective, traits_of
from fakeit_train.optimizer import make_optimizer
from fakeit_train.peak_memory import memory_gib
from fakeit_train.settings import load_config
from tests.acceptance.record import record

NUM_STEPS, NUM_ROUNDS, TARGET = 12, 7, 1.03
CONFIGS = ("digits", "digits_supervised_contrastive", "digits_multi_positive", "digits_dino")


def config_of(name: str) -> TrainConfig:
    config = load_config(name, [])
    classes = tuple("abcdefghij") if traits_of(config.objective).has_classifier else ()
    return replace(config, backbone=replace(config.backbone, classes=classes))


def batch_of(config: TrainConfig) -> Batch:
    batch = make_batch(config)
    return replace(batch, prompt_ids=torch.arange(len(batch.labels)) // 4)


def bare(config: TrainConfig, batch: Batch) -> None:
    """Runs the objective's forward and backward passes, and the same optimizer."""
    network = build_network(config.backbone).to(memory_format=torch.channels_last)
    objective = build_objective(network, config).train()
    optimizer = make_optimizer(objective, config.optim)
    for _ in range(NUM_STEPS):
        optimizer.zero_grad(set_to_none=True)
        loss, _ = objective(batch.crops, batch.labels, batch.prompt_ids)
        (loss / len(batch.labels)).backward()
        optimizer.step()


def memory_of(name: str) -> str:
    """Returns the peak memory of a process that trains with a config and does nothing else, in GiB."""
    done = subprocess.run([sys.executable, "-m", "benchmarks.step_objectives", name], capture_output=True, check=True)
    return f"{float(done.stdout.split()[-1]):.2f}"


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if len(sys.argv) > 1:
        config = config_of(sys.argv[1])
        loop(config, batch_of(config), NUM_STEPS)
        print(memory_gib(torch.device("cpu")))
        return
    lines = []
    for name in CONFIGS:
        config = config_of(name)
        batch = batch_of(config)
        arms = {"bare": lambda c=config, b=batch: bare(c, b), "loop": lambda c=config, b=batch: loop(c, b, NUM_STEPS)}
        found = time_in_turns(arms, NUM_ROUNDS)
        against = ratios(found["loop"], found["bare"])
        crops = sum(kind.num_crops for kind in config.crops_of_image.kinds)
        lines.append(
            f"| `{name}` | {config.data.batch_size} x {crops} | {spread(found['bare'])} | {spread(found['loop'])} | "
            f"**{spread(against, 3)}** | {memory_of(name)} |"
        )
        print(lines[-1], flush=True)
    record("step-objectives", "The training loop with each objective, compared with bare steps", [
        f"{NUM_STEPS} steps, one thread; median (range) over {NUM_ROUNDS} rounds, arms in turns; ratios within a round.",
        "Both arms have the same objective, crops and optimizer; bare steps are zero_grad, forward, backward and step. The",
        "loop of self-distillation also moves the teacher and the center. Memory: the most that a process held that",
        "trains alone, with Python and libraries.",
        "",
        "| config | crops a batch | bare, s | loop, s | loop / bare | GiB |",
        "|---|---|---|---|---|---|",
        *lines,
        "",
        f"Required: at most {TARGET}.",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
