"""Times feature extraction from class folders: ours, and the loop people write (ImageFolder, DataLoader, Pillow).

python -m benchmarks.extraction      # about 5 minutes

The network takes 2 ms a batch, as on a GPU, so the loaders are compared.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.pairs import in_turns, ratios, spread
from benchmarks.stream import write_images
from builders.image_sets.files import open_folder
from builders.networks.backbone import Backbone
from fakeit_eval.features.extract import Loading, extract
from fakeit_eval.models import Model
from tests.acceptance.record import record

NUM_IMAGES, BATCH_SIZE, SECONDS, NUM_ROUNDS = 3072, 64, 0.002, 5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Waiting(nn.Module):
    """Gives the mean color, after the time that a GPU would take."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        time.sleep(SECONDS)
        return pixels[:, :, 0, :8].flatten(1)


def ours(images: Path, workers: int | None) -> float:
    size, network = 24, Waiting()
    backbone = Backbone(library="", arch="waiting", feature_size=size, input_size=224, mean=MEAN, std=STD)
    given: dict[str, Any] = {} if workers is None else {"workers": workers}
    with tempfile.TemporaryDirectory() as cache:
        model = Model("waiting", backbone, "", Path(cache), lambda: network)
        began = time.perf_counter()
        extract(model, open_folder(str(images)), Loading(batch_size=BATCH_SIZE, cache=Path(cache), **given))
        return NUM_IMAGES / (time.perf_counter() - began)


def loop(images: Path, workers: int | None) -> float:
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    prepare = transforms.Compose([
        transforms.Resize(224, transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ])  # fmt: skip
    network, found = Waiting(), []
    began = time.perf_counter()
    given: dict[str, Any] = {} if workers is None else {"num_workers": workers}
    loader = torch.utils.data.DataLoader(ImageFolder(str(images), prepare), BATCH_SIZE, **given)
    with torch.inference_mode():
        for pixels, _ in loader:
            found.append(network(pixels))
    torch.cat(found).numpy()
    return NUM_IMAGES / (time.perf_counter() - began)


ARMS = {
    "fakeit-eval, 2 processes": lambda images: ours(images, 2),
    "ImageFolder and DataLoader, 2 processes": lambda images: loop(images, 2),
    "fakeit-eval, default": lambda images: ours(images, None),
    "ImageFolder and DataLoader, default": lambda images: loop(images, None),
}


def main() -> None:
    rates: dict[str, list[float]] = {arm: [] for arm in ARMS}
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        write_images(images, None, NUM_IMAGES)
        for number, arm in in_turns(ARMS, NUM_ROUNDS):
            rate = ARMS[arm](images)
            print(number, arm, f"{rate:.0f}", flush=True)
            if number:
                rates[arm].append(rate)
    (same, theirs), (default, their_default) = list(rates.values())[:2], list(rates.values())[2:]
    record("extraction", "Extracting features from class folders", [
        f"{NUM_IMAGES:,} JPEGs of 512×384 pixels, batches of {BATCH_SIZE}, a network that takes {1000 * SECONDS:g} ms a batch.",
        f"Median (range) over {NUM_ROUNDS} rounds, arms in turns; ratios are taken within a round.",
        "",
        "| arm | images/s |",
        "|---|---|",
        *(f"| {arm} | {spread(rate, 0)} |" for arm, rate in rates.items()),
        "",
        f"With the same number of processes: {spread(ratios(same, theirs))} times the loop (required: at least 1).",
        f"Both at their defaults: {spread(ratios(default, their_default))} times (required: at least 1.5).",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
