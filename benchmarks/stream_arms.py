"""Runs one reader of `benchmarks.stream` alone in its process: prepares its format, or reads and prints times as JSON.

Only our own arms import fakeit, so that other readers can be in an environment of their own.
"""

import io
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Images = Iterator[bytes]
BATCH_SIZE = 50


def decode(content: bytes) -> Any:
    """Decodes an image into an array by Pillow, the same in all arms."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


# --- ours: by number, in the shuffled order of training ---


def fakeit_local(data: str, work: str, start: float) -> Images:
    from builders.format.open_clone import open_clone
    from fakeit_train.data.order import Order

    clone = open_clone(data)
    order = Order(tuple(shard.num_samples for shard in clone.manifest.shards), BATCH_SIZE)
    for step in range(round(start * order.batches_per_epoch), order.batches_per_epoch):
        for number, _ in order.global_batch(step):
            yield clone[number].image


def fakeit_views(data: str, work: str, start: float) -> Iterator[Any]:
    from builders.format.open_clone import open_clone
    from fakeit_train.data.order import Order

    clone = open_clone(data)
    order = Order(tuple(shard.num_samples for shard in clone.manifest.shards), BATCH_SIZE)
    for step in range(round(start * order.batches_per_epoch), order.batches_per_epoch):
        for number, _ in order.global_batch(step):
            yield clone.view(number).image


def fakeit_http(data: str, work: str, start: float, batch_size: int = BATCH_SIZE) -> Images:
    import torch

    from builders.format.open_clone import open_clone
    from builders.format.shard_cache import ShardCache
    from fakeit_train.data.mixture import whole
    from fakeit_train.data.order import Order
    from fakeit_train.data.prefetch import Prefetcher
    from fakeit_train.distributed import World

    mixture = whole(open_clone(data, ShardCache(Path(work) / "cache", 1 << 40)))
    order = Order(tuple(shard.num_samples for shard in mixture.clones[0].manifest.shards), batch_size)
    prefetcher = Prefetcher(mixture, order, World(0, 1, torch.device("cpu")), order.batches_per_epoch)
    first = round(start * order.batches_per_epoch)
    prefetcher.advance(first)
    prefetcher.start()
    for step in range(first, order.batches_per_epoch):
        prefetcher.advance(step)
        views = mixture.views([number for number, _ in order.global_batch(step)])
        prefetcher.begin()
        yield from (bytes(view.image) for view in views)


# --- webdataset: in sequence; it resumes only by reading everything up to the sample ---


def webdataset(data: str, work: str, start: float) -> Images:
    import webdataset as wds

    samples = wds.WebDataset(json.loads((Path(work) / "urls.json").read_text()), shardshuffle=False, empty_check=False)
    total = int((Path(work) / "num_samples").read_text())
    return (sample["jpg"] for sample in islice(samples, round(start * total), None))


# --- datasets, streaming: in sequence ---


def datasets_streaming(data: str, work: str, start: float) -> Images:
    import datasets

    urls = json.loads((Path(work) / "files.json").read_text())
    found = datasets.load_dataset("webdataset", data_files={"train": urls}, split="train", streaming=True)
    found = found.cast_column("jpg", datasets.Image(decode=False))
    if start:
        found.load_state_dict(json.loads((Path(work) / "datasets-state.json").read_text()))
    return (row["jpg"]["bytes"] for row in found)


def datasets_save_state(work: str, share: float) -> None:
    import datasets

    urls = json.loads((Path(work) / "files.json").read_text())
    found = datasets.load_dataset("webdataset", data_files={"train": urls}, split="train", streaming=True)
    found = found.cast_column("jpg", datasets.Image(decode=False))
    for _ in islice(found, round(share * int((Path(work) / "num_samples").read_text()))):
        pass
    (Path(work) / "datasets-state.json").write_text(json.dumps(found.state_dict()))


# --- mosaicml-streaming: its own format ---


def mosaic_prepare(work: str, images: list[Path]) -> None:
    from streaming import MDSWriter

    with MDSWriter(out=str(Path(work) / "mds"), columns={"image": "bytes", "label": "int"}) as writer:
        for path in images:
            writer.write({"image": path.read_bytes(), "label": 0})


def mosaic_index(data: str, work: str, start: float) -> Images:
    from streaming import StreamingDataset

    found = StreamingDataset(local=str(Path(work) / "mds"), batch_size=BATCH_SIZE)
    numbers = np.random.default_rng(0).permutation(len(found))
    return (found[int(number)]["image"] for number in numbers[round(start * len(numbers)) :])


def mosaic_iterated(data: str, work: str, start: float) -> Images:
    from streaming import StreamingDataset

    found = StreamingDataset(local=str(Path(work) / "mds"), batch_size=BATCH_SIZE, shuffle=True)
    if start:
        done = round(start * len(found)) // BATCH_SIZE * BATCH_SIZE
        found.load_state_dict(
            {
                "epoch": 0,
                "sample_in_epoch": done,
                "num_canonical_nodes": 64,
                "shuffle_seed": 9176,
                "initial_physical_nodes": 1,
            }
        )
    return (sample["image"] for sample in found)


# --- litdata: its own format ---


def litdata_prepare(work: str, images: list[Path]) -> None:
    import litdata

    litdata.optimize(
        fn=_litdata_sample,
        inputs=[str(path) for path in images],
        output_dir=str(Path(work) / "lit"),
        chunk_bytes="64MB",
        num_workers=1,
        verbose=False,
    )


def _litdata_sample(path: str) -> dict[str, Any]:
    return {"image": Path(path).read_bytes(), "label": 0}


def litdata_iterated(data: str, work: str, start: float) -> Images:
    import litdata

    found = litdata.StreamingDataset(str(Path(work) / "lit"), shuffle=True, drop_last=False)
    loader = litdata.StreamingDataLoader(found, batch_size=BATCH_SIZE, num_workers=0, collate_fn=list)
    if start:
        loader.load_state_dict(json.loads((Path(work) / "litdata-state.json").read_text()))
    return (sample["image"] for batch in loader for sample in batch)


def litdata_save_state(work: str, share: float) -> None:
    import litdata

    found = litdata.StreamingDataset(str(Path(work) / "lit"), shuffle=True, drop_last=False)
    loader = litdata.StreamingDataLoader(found, batch_size=BATCH_SIZE, num_workers=0, collate_fn=list)
    for _ in islice(loader, round(share * len(found)) // BATCH_SIZE):
        pass
    (Path(work) / "litdata-state.json").write_text(json.dumps(loader.state_dict()))


ARMS: dict[str, Callable[[str, str, float], Images]] = {
    "fakeit_local": fakeit_local,
    "fakeit_views": fakeit_views,
    "fakeit_http": fakeit_http,
    "webdataset": webdataset,
    "datasets": datasets_streaming,
    "mosaic_index": mosaic_index,
    "mosaic": mosaic_iterated,
    "litdata": litdata_iterated,
}
SAVE_STATE = {"datasets": datasets_save_state, "litdata": litdata_save_state}
PREPARE = {"mosaic": mosaic_prepare, "litdata": litdata_prepare}
IMPORTS = {
    "mosaic": "streaming",
    "mosaic_index": "streaming",
    "fakeit_local": "fakeit_train.data.loader",
    "fakeit_views": "fakeit_train.data.loader",
    "fakeit_http": "torch",
}


def measure(arm: str, data: str, work: str, *, decoded: bool, start: float, most: int) -> dict[str, float]:
    """Measures seconds to the first sample and samples per second after it; imports are not counted."""
    __import__(IMPORTS.get(arm, arm))
    began = time.perf_counter()
    images = ARMS[arm](data, work, start)
    first = next(images)
    if decoded:
        decode(first)
    to_first = time.perf_counter() - began
    began, number, num_bytes = time.perf_counter(), 0, 0
    for image in islice(images, most):
        num_bytes += decode(image).nbytes if decoded else len(image)
        number += 1
    seconds = time.perf_counter() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"first": to_first, "rate": number / seconds, "samples": number + 1, "memory": memory, "bytes": num_bytes}


def main() -> None:
    mode, arm, data, work = sys.argv[1:5]
    if mode == "prepare":
        PREPARE[arm](work, sorted(Path(data).rglob("*.jpg")))
    elif mode == "save":
        SAVE_STATE[arm](work, float(sys.argv[5]))
    else:
        most = int(sys.argv[6])
        found = measure(arm, data, work, decoded=mode == "decoded", start=float(sys.argv[5]), most=most)
        print(json.dumps(found))


if __name__ == "__main__":
    main()
