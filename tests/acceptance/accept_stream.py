"""Streams a remote clone through faults, and by four processes with two loader workers each that share a cache.

python -m tests.acceptance.accept_stream
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from builders.format.open_clone import open_clone
from builders.format.shard_cache import ShardCache
from tests.acceptance.record import ROOT, record
from tests.loopback.files import FileServer
from tests.loopback.server import Fault, failing, running
from tests.noise import write_noise_clone

NUM_SHARDS, NUM_RANKS, NUM_WORKERS, BATCH_SIZE = 50, 4, 2, 40
CORRUPTED = 17
"""Number of the shard request whose answer is corrupted."""


def stream(url: str, cache: Path, max_bytes: int, num_ranks: int) -> tuple[list[str], int]:
    """Runs all ranks; returns their lines, and the most bytes that the cache held when it was polled."""
    fixed = [sys.executable, "-m", "tests.acceptance.streaming", url, str(cache), str(max_bytes)]
    ranks = [
        subprocess.Popen(
            [*fixed, str(rank), str(num_ranks), str(NUM_WORKERS), str(BATCH_SIZE)],
            cwd=ROOT, text=True, stdout=(cache.parent / f"{cache.name}-{rank}.txt").open("w"),
        )
        for rank in range(num_ranks)
    ]  # fmt: skip
    watch, most = ShardCache(cache, max_bytes), 0
    while any(rank.poll() is None for rank in ranks):
        most = max(most, watch.num_bytes() if cache.is_dir() else 0)
    assert all(rank.returncode == 0 for rank in ranks)
    texts = [(cache.parent / f"{cache.name}-{rank}.txt").read_text() for rank in range(num_ranks)]
    return [line for text in texts for line in text.splitlines()], most


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        clone = write_noise_clone(Path(folder) / "clone", num_classes=10, per_class=200, shard_size=40, side=100)
        local = open_clone(clone)
        manifest = local.manifest
        assert len(manifest.shards) == NUM_SHARDS and len(local) % BATCH_SIZE == 0
        rows = [row for shard in range(NUM_SHARDS) for row in local.metadata(shard, ["key", "sha256"]).to_pylist()]
        expected = sorted(f"{row['key']} {row['sha256']}" for row in rows)
        lines = [
            f"{len(local):,} samples in {NUM_SHARDS} shards, {manifest.num_bytes:,} bytes, over HTTP on 127.0.0.1.",
            "The loader, the order and the prefetcher are those of training; images are hashed, not cropped.",
            "",
            "| | measured | required |",
            "|---|---|---|",
        ]
        ok = []
        with running(FileServer(clone)) as server:
            choose, count = failing(0.05, seed=1), iter(range(10**6))
            num_faults: list[str] = []
            corrupted = "; in addition one corrupted download"

            def faults(method: str, path: str) -> Fault | None:
                if method == "GET" and path.endswith(".tar") and next(count) == CORRUPTED:
                    return Fault(corrupt=True)
                fault = choose(method, path)
                num_faults.extend([path] if fault else [])
                return fault

            server.traffic.choose = faults
            for name, max_bytes in (("through the cache", 10**9), ("by ranges, without a cache", 0)):
                num_faults.clear()
                server.traffic.requests.clear()
                got, _ = stream(server.url, Path(folder) / f"faults-{max_bytes}", max_bytes, 1)
                num_requests = sum(server.traffic.requests.values())
                ok.append(sorted(got) == expected)
                lines += [
                    f"| {name}: requests that failed (status, or connection dropped){corrupted} | "
                    f"{len(num_faults)} of {num_requests} | 5 % |",
                    f"| samples with correct bytes, each exactly once | {len(set(got) & set(expected))} of "
                    f"{len(expected)}, {len(got) - len(set(got))} twice | all, once |",
                ]
                corrupted = ""
        for name, share, bound in (("larger than the clone", 1.1, 1), ("a quarter of the clone", 0.25, 0)):
            with running(FileServer(clone)) as server:
                max_bytes = int(share * manifest.num_bytes)
                got, most = stream(server.url, Path(folder) / f"shared-{share}", max_bytes, NUM_RANKS)
                sent = {path[1:]: num_bytes for path, num_bytes in server.traffic.sent_by_path.items() if "tar" in path}
                gets = [server.traffic.requests[f"GET /{shard.name}"] for shard in manifest.shards]
                ok += [sorted(got) == expected, most <= max_bytes, not bound or set(gets) == {1}]
                lines += [
                    f"| {NUM_RANKS} × {NUM_WORKERS}, cache {name}: correct samples, each once | "
                    f"{len(set(got) & set(expected))} of {len(expected)} | all |",
                    f"| requests per shard, range | {min(gets)} to {max(gets)} | {'1' if bound else 'reported'} |",
                    f"| bytes downloaded / bytes of the clone | {sum(sent.values()) / manifest.num_bytes:.2f} | "
                    f"{'1' if bound else 'reported'} |",
                    f"| largest size of the cache / its bound | {most / max_bytes:.2f} | at most 1 |",
                ]
    record("stream-faults", "Streaming through faults and through a shared cache", lines)
    raise SystemExit(0 if all(ok) else 1)


if __name__ == "__main__":
    main()
