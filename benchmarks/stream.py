"""Times our reader, stock webdataset, datasets streaming, mosaicml-streaming and litdata.

python -m benchmarks.stream [--images DIR] [--peers PYTHON] [--http-only]

All arms read the same images with the same decoder, from the disk and over HTTP on 127.0.0.1. They run in turns, each
alone in its process. PEERS is the Python of an environment with mosaicml-streaming and litdata, which need other
versions of libraries than we do:
uv venv peers && uv pip install --python peers/bin/python mosaicml-streaming litdata pillow numpy
"""

import argparse
import io
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.pairs import call_alone, in_turns, ratios, spread
from builders.classes.class_options import ClassOptions
from builders.format.open_clone import open_clone
from builders.make_clone import make_clone
from builders.planning.plan import Plan
from builders.real_images import RealImages
from tests.acceptance.record import ROOT, record
from tests.loopback.server import free_port

NUM_IMAGES, SIZE, NUM_CLASSES, SHARD_SIZE = 4000, (512, 384), 10, 500
NUM_ROUNDS = 3
ARMS = "stream_arms.py"
MAX_SAMPLES = {"raw": 10**9, "decoded": 10**9}
"""Maximum number of samples after the first, by mode; other modes read 100."""
RESUME_AT = 0.9
PEER_ARMS = ("mosaic", "mosaic_index", "litdata")
LABELS = {
    "fakeit_views": "ours, training order, as views of the mapped file (as training reads)",
    "fakeit_local": "ours, training order, as bytes",
    "fakeit_http": "ours, training order, cold cache",
    "webdataset": "webdataset, in sequence",
    "datasets": "datasets, in sequence",
    "mosaic": "mosaicml-streaming, shuffled",
    "mosaic_index": "mosaicml-streaming, by random index",
    "litdata": "litdata, shuffled",
}


def write_images(out: Path, images: Path | None, num_images: int = NUM_IMAGES) -> None:
    """Writes JPEGs of 512×384 pixels, random crops of photographs, into class folders."""
    photographs = (
        [Image.open(path).convert("RGB") for path in sorted(images.rglob("*.jpg"))] if images else _sample_images()
    )
    dice = np.random.default_rng(0)
    for number in range(num_images):
        photograph = photographs[number % len(photographs)]
        scale = dice.uniform(0.5, 1)
        width = int(scale * min(photograph.width, photograph.height * SIZE[0] / SIZE[1]))
        height = width * SIZE[1] // SIZE[0]
        left = int(dice.integers(photograph.width - width + 1))
        top = int(dice.integers(photograph.height - height + 1))
        cut = photograph.crop((left, top, left + width, top + height)).resize(SIZE, Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        cut.save(buffer, "JPEG", quality=90)
        folder = out / f"class_{number % NUM_CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:06d}.jpg").write_bytes(buffer.getvalue())


def _sample_images() -> list[Image.Image]:
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(image) for image in load_sample_images().images]


def run_arm(python: str, mode: str, arm: str, data: str, work: Path, start: float = 0.0) -> dict[str, float]:
    shutil.rmtree(work / "cache", ignore_errors=True)
    most = MAX_SAMPLES.get(mode, 100)
    found: dict[str, float] = call_alone(
        python, ARMS, "decoded" if mode == "decoded" else "raw", arm, data, work, start, most
    )
    return found


def measure_all(arms: dict[str, str], data: str, work: Path, modes: tuple[str, ...]) -> dict[str, dict[str, list[Any]]]:
    """Returns the measurements of each round for each arm and mode; arms run in turns, in rotated order."""
    found: dict[str, dict[str, list[Any]]] = {arm: {mode: [] for mode in modes} for arm in arms}
    for number, arm in in_turns(arms, NUM_ROUNDS):
        for mode in modes:
            message = run_arm(arms[arm], mode, arm, data, work, RESUME_AT if mode == "resume" else 0.0)
            if number:
                found[arm][mode].append(message)
            print(f"round {number}: {arm} {mode} {message}", flush=True)
    return found


def table(found: dict[str, dict[str, list[Any]]], ours: str) -> list[str]:
    lines = [
        "| reader | raw, samples/s | ours / it | decoded, samples/s | ours / it | first sample, s | memory, MB | resume, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arm, modes in found.items():
        cells = [LABELS[arm]]
        for mode in ("raw", "decoded"):
            rates = [message["rate"] for message in modes[mode]]
            against = ratios([message["rate"] for message in found[ours][mode]], rates)
            cells += [spread(rates, 0), spread(against) if arm != ours else "1"]
        cells.append(spread([message["first"] for message in modes["raw"]]))
        cells.append(spread([message["memory"] for message in modes["raw"]], 0))
        cells.append(spread([message["first"] for message in modes["resume"]]))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="directory of photographs; by default the two of scikit-learn")
    parser.add_argument("--peers", default="", help="Python of an environment with mosaicml-streaming and litdata")
    parser.add_argument("--http-only", action="store_true", help="leave out reading from the disk")
    requested = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_images(work / "images", requested.images)
        recipe = RealImages.recipe("train", ClassOptions(source=str(work / "images")), shard_size=SHARD_SIZE)
        make_clone(Plan(recipe, NUM_IMAGES // NUM_CLASSES), str(work / "clone"))
        clone = open_clone(work / "clone")
        shards = [shard.name for shard in clone.manifest.shards]
        (work / "num_samples").write_text(str(len(clone)))
        if requested.peers:
            for arm in ("mosaic", "litdata"):
                call_alone(requested.peers, ARMS, "prepare", arm, work / "images", work)
        local = dict.fromkeys(("fakeit_views", "fakeit_local", "webdataset", "datasets"), sys.executable)
        local |= dict.fromkeys(PEER_ARMS, requested.peers) if requested.peers else {}
        (work / "urls.json").write_text(json.dumps([str(work / "clone" / name) for name in shards]))
        (work / "files.json").write_text(json.dumps([str(work / "clone" / name) for name in shards]))
        for arm in ("datasets", *(["litdata"] if requested.peers else [])):
            call_alone(local[arm], ARMS, "save", arm, work, work, RESUME_AT)
        modes = ("raw", "decoded", "resume")
        on_disk = {} if requested.http_only else measure_all(local, str(work / "clone"), work, modes)
        port = free_port()
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.loopback.files", str(work / "clone"), str(port)], cwd=ROOT
        )
        try:
            url = f"http://127.0.0.1:{port}"
            (work / "urls.json").write_text(json.dumps([f"pipe:curl -s {url}/{name}" for name in shards]))
            (work / "files.json").write_text(json.dumps([f"{url}/{name}" for name in shards]))
            call_alone(sys.executable, ARMS, "save", "datasets", work, work, RESUME_AT)
            remote = dict.fromkeys(("fakeit_http", "webdataset", "datasets"), sys.executable)
            over_http = measure_all(remote, url, work, modes)
        finally:
            server.kill()
    record(
        "stream-http" if requested.http_only else "stream",
        "Streaming compared with other readers",
        [
            f"{len(clone):,} JPEGs of {SIZE[0]}×{SIZE[1]} pixels, {clone.manifest.num_bytes / len(clone) / 1024:.0f} KiB",
            f"each, in {len(shards)} shards; one process, one thread; all arms decode with Pillow. Median (range) over",
            f"{NUM_ROUNDS} rounds, arms in turns; ratios are taken within a round.",
            "",
            "- Raw, decoded: a whole epoch after the first sample, without imports. Every arm imports torch: without",
            "  it decoding is a fifth slower, because memory is returned and allocated again.",
            "- Memory: peak of the process, with libraries and mapped pages.",
            "- Resume: from opening to the first sample at 90 % of an epoch. webdataset reads all samples before it.",
            "",
            *(["From the disk:", "", *table(on_disk, "fakeit_views"), ""] if on_disk else []),
            "Over HTTP on 127.0.0.1 (mosaicml-streaming and litdata cannot read plain HTTP):",
            "",
            *table(over_http, "fakeit_http"),
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
