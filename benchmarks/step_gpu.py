"""Times training from shards on a GPU (ResNet50, 1 + 8 crops, bfloat16) and the loop that people write.

python -m benchmarks.step_gpu             # on a GPU
python -m benchmarks.step_gpu --rehearse  # the same code with a small network and few images; needs no GPU

The loop that people write reads class folders, crops with Pillow and torchvision, and runs the network in channels-last
memory, with autocast, eagerly or compiled.
"""

import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.pairs import ratios, spread
from benchmarks.stream import NUM_CLASSES, write_images
from builders.classes.class_options import ClassOptions
from builders.format.open_clone import open_clone
from builders.make_clone import make_clone
from builders.networks.backbone import build_network
from builders.planning.plan import Plan
from builders.real_images import RealImages
from fakeit_train.checkpoint import make_state
from fakeit_train.config import TrainConfig
from fakeit_train.crops.config import CropConfig
from fakeit_train.data.loader import OrderSampler, make_loader
from fakeit_train.data.mixture import whole
from fakeit_train.distributed import World
from fakeit_train.metrics_log import silence
from fakeit_train.objectives.base import build_objective
from fakeit_train.optimizer import make_optimizer
from fakeit_train.settings import load_config
from fakeit_train.trainer import _Run
from tests.acceptance.record import record
from tests.fakeit_train.crops.reference_crops import reference_transform

REHEARSAL = "--rehearse" in sys.argv
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BATCH_SIZE, NUM_STEPS, NUM_WARM, NUM_ROUNDS = (8, 2, 1, 1) if REHEARSAL else (128, 20, 5, 3)
NUM_IMAGES = 200 if REHEARSAL else 4000
NUM_WORKERS = min(12, os.cpu_count() or 1)
TARGET = 2.0
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass
class Measurement:
    rate: float
    """Images per second."""
    busy: float
    """Fraction of the polls at which the GPU was busy."""


def configured(**data: Any) -> TrainConfig:
    config = load_config("imagenet_100_sd", ["log_every=10", "checkpoint_every=1000000"])
    classes = tuple(f"class_{number}" for number in range(NUM_CLASSES))
    arch = "resnet18" if REHEARSAL else "resnet50"
    data = {"batch_size": BATCH_SIZE, "num_workers": NUM_WORKERS, **data}
    return replace(
        config,
        backbone=replace(config.backbone, arch=arch, classes=classes),
        data=replace(config.data, **data),
    )


def ours(root: Path) -> Measurement:
    """Runs the steps of `train`."""
    config = configured()
    mixture = whole(open_clone(root))
    network = build_network(config.backbone).to(DEVICE).to(memory_format=torch.channels_last)
    objective = build_objective(network, config).to(DEVICE)
    state = make_state(objective, make_optimizer(objective, config.optim), config, DEVICE.type)
    total = NUM_WARM + NUM_STEPS
    batches = make_loader(mixture, config, OrderSampler(mixture.order(config.data), 0, 10**6, 0, 1))
    with tempfile.TemporaryDirectory() as folder:
        run = _Run(config, World(0, 1, DEVICE), state, Path(folder), total, total)
        run._save = lambda step: None  # type: ignore[method-assign]
        step, clock = run.step, Clock()
        run.step = lambda number, batch: clock.around(number, lambda: step(number, batch))  # type: ignore[method-assign, assignment]
        run.steps(0, batches, silence())
        return clock.measurement()


def baseline(images: Path, *, is_compiled: bool) -> Measurement:
    """Runs a fair hand-written loop: ImageFolder, Pillow, torchvision, channels-last, autocast, fused SGD."""
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    crops, finish = CropConfig(), [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    made = [(g.num_crops, transforms.Compose([reference_transform(g, crops), *finish])) for g in crops.kinds]

    def multi_crop(image: Any) -> list[torch.Tensor]:
        return [torch.stack([transform(image) for _ in range(count)]) for count, transform in made]

    data = ImageFolder(str(images), multi_crop)
    loader = torch.utils.data.DataLoader(
        data, BATCH_SIZE, shuffle=True, num_workers=NUM_WORKERS, drop_last=True, pin_memory=DEVICE.type == "cuda"
    )
    endless = itertools.chain.from_iterable(itertools.repeat(loader))
    config = configured()
    network = build_network(config.backbone).to(DEVICE).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4, fused=True)
    if is_compiled:
        network.compile()
    clock = Clock()
    for number, (crops_by_kind, labels) in enumerate(itertools.islice(endless, NUM_WARM + NUM_STEPS)):
        clock.around(number, lambda: plain_step(network, optimizer, crops_by_kind, labels))  # noqa: B023
    return clock.measurement()


def plain_step(network: nn.Module, optimizer: torch.optim.Optimizer, kinds: list[Any], labels: torch.Tensor) -> None:
    labels = labels.to(DEVICE, non_blocking=True)
    optimizer.zero_grad()
    with torch.autocast(DEVICE.type, torch.bfloat16, enabled=DEVICE.type == "cuda"):
        losses = []
        for crops_of_kind in kinds:
            pixels = crops_of_kind.flatten(0, 1).to(DEVICE, non_blocking=True, memory_format=torch.channels_last)
            logits = network(pixels)
            losses.append(F.cross_entropy(logits, labels.repeat_interleave(crops_of_kind.shape[1]), reduction="sum"))
        loss = sum(losses) / (len(labels) * sum(crops_of_kind.shape[1] for crops_of_kind in kinds))
    loss.backward()
    optimizer.step()


class Clock:
    """Measures the time of all steps after the warm-up, and polls meanwhile whether the GPU is busy."""

    def __init__(self) -> None:
        self.began = self.ended = 0.0
        self.polls: list[bool] = []
        self.is_over = threading.Event()

    def around(self, number: int, step: Callable[[], Any]) -> Any:
        if number == NUM_WARM:
            wait_for_device()
            self.began = time.perf_counter()
            threading.Thread(target=self._poll, daemon=True).start()
        found = step()
        if number == NUM_WARM + NUM_STEPS - 1:
            wait_for_device()
            self.ended = time.perf_counter()
            self.is_over.set()
        return found

    def _poll(self) -> None:
        while DEVICE.type == "cuda" and not self.is_over.wait(0.1):
            command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
            self.polls.append(int(subprocess.check_output(command).split()[0]) > 0)

    def measurement(self) -> Measurement:
        rate = NUM_STEPS * BATCH_SIZE / (self.ended - self.began)
        return Measurement(rate, sum(self.polls) / len(self.polls) if self.polls else float("nan"))


def wait_for_device() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def rounds(arms: dict[str, Callable[[], Measurement]]) -> Iterator[tuple[str, Measurement]]:
    for number in range(NUM_ROUNDS):
        names = list(arms)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            measured = arms[name]()
            print(f"round {number + 1}: {name} {measured.rate:.0f} images/s, busy {measured.busy:.0%}", flush=True)
            yield name, measured


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_images(work / "images", None, NUM_IMAGES)
        recipe = RealImages.recipe("train", ClassOptions(source=str(work / "images")), shard_size=250)
        make_clone(Plan(recipe, NUM_IMAGES // NUM_CLASSES), str(work / "clone"))
        arms: dict[str, Callable[[], Measurement]] = {
            "fakeit-train": lambda: ours(work / "clone"),
            "class folders, Pillow, eager": lambda: baseline(work / "images", is_compiled=False),
            "class folders, Pillow, compiled": lambda: baseline(work / "images", is_compiled=True),
        }
        found: dict[str, list[Measurement]] = {name: [] for name in arms}
        for name, measured in rounds(arms):
            found[name].append(measured)
    base = [measured.rate for measured in found["class folders, Pillow, eager"]]
    lines = [
        f"{torch.cuda.get_device_name() if DEVICE.type == 'cuda' else 'no GPU'}. ResNet50, 1 + 8 crops, bfloat16,",
        f"batches of {BATCH_SIZE}, {NUM_WORKERS} loader processes, {NUM_STEPS} steps after {NUM_WARM} warm-up steps.",
        f"Median (range) over {NUM_ROUNDS} rounds, arms in turns; ratios are taken within a round.",
        f"Required: {TARGET:g} times the hand-written loop.",
        "",
        "| arm | images/s | times the hand-written loop | GPU busy |",
        "|---|---|---|---|",
        *(
            f"| {name} | {spread([t.rate for t in each], 0)} | {spread(ratios([t.rate for t in each], base))} | "
            f"{spread([100 * t.busy for t in each], 0)} % |"
            for name, each in found.items()
        ),
    ]
    if REHEARSAL:
        print("\n".join(lines))
    else:
        record("step-gpu", "Training steps from shards on a GPU", lines)


if __name__ == "__main__":
    main()
