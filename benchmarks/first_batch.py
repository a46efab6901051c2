"""Times the first batch from a distant server: our shuffled order compared with stock webdataset in sequence.

python -m benchmarks.first_batch

The server waits for one round trip before it answers, for another one on a new connection, and sends at a bounded rate
on each connection. Every arm runs alone in its process with an empty cache. Imports are not counted.
"""

import argparse
import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.pairs import call_alone, in_turns, spread
from benchmarks.stream_arms import fakeit_http, webdataset
from tests.acceptance.record import ROOT, record
from tests.loopback.server import free_port

ROUND_TRIP = 0.03
"""Seconds."""
BYTES_PER_SECOND = 50e6
"""Rate of one connection."""
PIECE = 250_000
BATCH_SIZE = 64
RESUME_AT = 0.9
NUM_ROUNDS = 5
ARMS = "first_batch.py"
LABELS = {"fakeit": "ours, training order, cold cache", "webdataset": "webdataset, in sequence"}


def serve(root: Path, port: int) -> None:
    """Serves the files below `root` with the delays of a distant server."""
    from aiohttp import web

    known: weakref.WeakSet[Any] = weakref.WeakSet()

    async def answer(request: web.Request) -> web.StreamResponse:
        is_new = request.transport not in known
        known.add(request.transport)
        await asyncio.sleep(ROUND_TRIP * (2 if is_new else 1))
        path = root / request.path.lstrip("/")
        if not path.is_file():
            return web.Response(status=404)
        size, requested = path.stat().st_size, request.http_range
        start, stop = requested.start or 0, min(requested.stop or size, size)
        response = web.StreamResponse(status=206 if request.headers.get("Range") else 200)
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        response.content_length = stop - start
        await response.prepare(request)
        began = time.perf_counter()
        # A client may close the connection before it has read everything.
        with path.open("rb") as file, contextlib.suppress(ConnectionResetError):
            for offset in range(start, stop, PIECE):
                file.seek(offset)
                await response.write(file.read(min(PIECE, stop - offset)))
                sent = min(offset + PIECE, stop) - start
                await asyncio.sleep(max(0.0, began + sent / BYTES_PER_SECOND - time.perf_counter()))
        return response

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    web.run_app(application, host="127.0.0.1", port=port, print=None, handle_signals=False)


READERS: dict[str, Callable[[str, str, float], Iterator[bytes]]] = {
    "fakeit": partial(fakeit_http, batch_size=BATCH_SIZE),
    "webdataset": webdataset,
}
IMPORTS = {"fakeit": ("torch", "aiohttp", "fakeit_train.data.prefetch"), "webdataset": ("webdataset",)}


def measure(arm: str, url: str, work: str, start: float) -> float:
    """Returns the seconds from opening the clone to the end of the first batch."""
    for name in IMPORTS[arm]:
        __import__(name)
    began = time.perf_counter()
    batch = list(islice(READERS[arm](url, work, start), BATCH_SIZE))
    seconds = time.perf_counter() - began
    assert len(batch) == BATCH_SIZE
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clone", type=Path, help="a clone to serve; by default the one of benchmarks.stream")
    requested = parser.parse_args()
    from builders.format.open_clone import open_clone

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        clone_path = requested.clone or _make_clone(work)
        clone = open_clone(clone_path)
        (work / "num_samples").write_text(str(len(clone)))
        port = free_port()
        server = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.first_batch", "serve", str(clone_path), str(port)], cwd=ROOT
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_for(f"{url}/clone.json")
            (work / "urls.json").write_text(
                json.dumps([f"pipe:curl -s {url}/{shard.name}" for shard in clone.manifest.shards])
            )
            found: dict[tuple[str, float], list[float]] = {(arm, at): [] for arm in READERS for at in (0.0, RESUME_AT)}
            for number, arm in in_turns(READERS, NUM_ROUNDS):
                for at in (0.0, RESUME_AT):
                    shutil.rmtree(work / "cache", ignore_errors=True)
                    seconds = call_alone(sys.executable, ARMS, arm, url, work, at)
                    if number:
                        found[arm, at].append(seconds)
                    print(f"round {number}: {arm} at {at:g}: {seconds:.3f} s", flush=True)
        finally:
            server.kill()
    theirs = found["webdataset", 0.0]
    more = {
        at: [(a - b) / ROUND_TRIP for a, b in zip(found["fakeit", at], theirs, strict=True)] for at in (0.0, RESUME_AT)
    }
    record(
        "first-batch",
        "The first batch from a distant server",
        [
            f"{len(clone):,} JPEGs of {clone.manifest.num_bytes / len(clone) / 1024:.0f} KiB in {len(clone.manifest.shards)} "
            f"shards over HTTP on 127.0.0.1, {ROUND_TRIP * 1000:.0f} ms per round trip, one more round trip for a",
            f"new connection, {BYTES_PER_SECOND / 1e6:.0f} MB/s per connection; batches of {BATCH_SIZE}. Median (range) over "
            f"{NUM_ROUNDS} rounds, arms in turns, each alone in its process.",
            "Resume starts at 90 % of an epoch; webdataset reads everything up to that sample.",
            "",
            "| reader | first batch, s | resume, s |",
            "|---|---|---|",
            *(
                f"| {LABELS[arm]} | {spread(found[arm, 0.0], 3)} | {spread(found[arm, RESUME_AT], 3)} |"
                for arm in READERS
            ),
            "",
            f"Delay of ours after webdataset's first batch, in round trips: {spread(more[0.0], 1)} for the first batch, "
            f"{spread(more[RESUME_AT], 1)} for resume.",
        ],
    )


def _make_clone(work: Path) -> Path:
    from benchmarks.stream import NUM_CLASSES, NUM_IMAGES, SHARD_SIZE, write_images
    from builders.classes.class_options import ClassOptions
    from builders.make_clone import make_clone
    from builders.planning.plan import Plan
    from builders.real_images import RealImages

    write_images(work / "images", None)
    recipe = RealImages.recipe("train", ClassOptions(source=str(work / "images")), shard_size=SHARD_SIZE)
    make_clone(Plan(recipe, NUM_IMAGES // NUM_CLASSES), str(work / "clone"))
    return work / "clone"


def _wait_for(url: str) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            urllib.request.urlopen(url).read()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"no answer from {url}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(Path(sys.argv[2]), int(sys.argv[3]))
    elif sys.argv[1:2] and sys.argv[1] in READERS:
        print(json.dumps(measure(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))))
    else:
        main()
