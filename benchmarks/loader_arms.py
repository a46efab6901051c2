"""Runs one loader of `benchmarks.loader` alone in its process; prints its measurements as JSON."""

import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

BATCH_SIZE, NUM_WORKERS = 64, 2
NUM_WARM = 4
EVERY = 2500
"""Number of images between measurements of memory."""


def ours(data: str) -> Iterator[Any]:
    """Yields batches endlessly."""
    from builders.format.open_clone import open_clone
    from fakeit_train.data.loader import OrderSampler, make_loader
    from fakeit_train.data.mixture import whole
    from fakeit_train.settings import load_config

    config = load_config("imagenet_100_sd", [])
    config = replace(
        config,
        data=replace(config.data, batch_size=BATCH_SIZE, num_workers=NUM_WORKERS, block_size=4),
    )
    mixture = whole(open_clone(data))
    sampler = OrderSampler(mixture.order(config.data), 0, 10**6, 0, 1)
    return make_loader(mixture, config, sampler)


def webdataset(data: str) -> Iterator[Any]:
    """Uses stock components: shuffled shards, a shuffle buffer, Pillow, torchvision's crops, webdataset's loader."""
    import torch
    import webdataset as wds
    from PIL import Image

    from builders.format.open_clone import open_clone
    from fakeit_train.crops.config import CropConfig
    from tests.fakeit_train.crops.reference_crops import reference_transform

    config = CropConfig()
    transforms = [(batch.num_crops, reference_transform(batch, config)) for batch in config.kinds]

    def crops(image: Image.Image) -> list[Any]:
        import numpy as np

        return [
            torch.from_numpy(np.stack([np.asarray(transform(image)) for _ in range(count)]))
            for count, transform in transforms
        ]

    def collate(samples: list[Any]) -> Any:
        crops_by_kind = zip(*(sample[0] for sample in samples), strict=True)
        return [torch.stack(batch) for batch in crops_by_kind], torch.tensor([sample[1] for sample in samples])

    shards = [str(Path(data) / shard.name) for shard in open_clone(data).manifest.shards]
    samples = (
        wds.WebDataset(shards, shardshuffle=len(shards), resampled=True)
        .shuffle(1000)
        .decode("pil")
        .to_tuple("jpg", "cls")
        .map_tuple(crops, lambda label: label)
        .batched(BATCH_SIZE, collation_fn=collate)
    )
    return iter(wds.WebLoader(samples, batch_size=None, num_workers=NUM_WORKERS))


def rate(batches: Iterator[Any], num_batches: int) -> dict[str, float]:
    for _ in itertools.islice(batches, NUM_WARM):
        pass
    began = time.perf_counter()
    for _ in itertools.islice(batches, num_batches):
        pass
    return {"rate": num_batches * BATCH_SIZE / (time.perf_counter() - began)}


def waiting(batches: Iterator[Any], num_batches: int, consumed: float) -> dict[str, float]:
    """Measures the waiting time per batch in ms while pauses instead of steps consume `consumed` images per second."""
    for _ in itertools.islice(batches, NUM_WARM):
        pass
    waits, began = [], time.perf_counter()
    for number in range(num_batches):
        requested = time.perf_counter()
        next(batches)
        waits.append(1000 * (time.perf_counter() - requested))
        time.sleep(max(0.0, began + (number + 1) * BATCH_SIZE / consumed - time.perf_counter()))
    return {
        "median": statistics.median(waits),
        "most_of_them": sorted(waits)[int(0.95 * len(waits))],
        "most": max(waits),
        "share": sum(waits) / 1000 / (time.perf_counter() - began),
    }


def memory(batches: Iterator[Any], num_images: int) -> dict[str, Any]:
    """Records the memory of this process and its children, in GiB, by the number of images."""
    found = []
    for number, _ in enumerate(itertools.islice(batches, num_images // BATCH_SIZE), 1):
        images = number * BATCH_SIZE
        if images // EVERY != (images - BATCH_SIZE) // EVERY or number == 8:
            found.append((images, proportional_gib()))
    return {"memory": found}


def proportional_gib() -> float:
    """Returns the proportional set size of this process and its children, which counts shared memory once."""
    import multiprocessing
    import os

    total = 0
    for process in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 2**20


def main() -> None:
    arm, data, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if arm == "waiting":
        print(json.dumps(waiting(ours(data), count, float(sys.argv[4]))))
    elif arm == "memory":
        print(json.dumps(memory(ours(data), count)))
    else:
        batches = webdataset(data) if arm == "webdataset" else ours(data)
        print(json.dumps(rate(batches, count)))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
