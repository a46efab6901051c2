"""Makes the same digits clone with every runner and through every fault: all files are identical. Measures overheads.

python -m tests.acceptance.accept_scale [FOLDER]     # about 20 minutes
"""

import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from builders.storage.base import open_storage
from builders.storage.remote import RemoteStorage
from tests.acceptance.accept_kill import digests
from tests.acceptance.record import ROOT, command, record

RECIPE = "digits_sd/c_cfg2"
OPTIONS: tuple[object, ...] = (
    "--images-per-class", 96, "--shard-size", 40, "--batch-size", 20, "--num-inference-steps", 10,
)  # fmt: skip
NUM_SHARDS, NUM_IMAGES, PER_SHARD = 24, 960, 40
NUM_ROUNDS = 3
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}


def start(out: object, *options: object, **environment: str) -> "subprocess.Popen[str]":
    """Starts `make`, in the directory of the argument PWD if there is one."""
    return subprocess.Popen(
        command("build", "make", RECIPE, out, *OPTIONS, *options),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**ENVIRONMENT, **environment},
        cwd=environment.get("PWD", ROOT),
    )


def finish(process: "subprocess.Popen[str]") -> str:
    out, error = process.communicate()
    assert process.returncode == 0, error
    return out


def num_made(out: Path) -> int:
    return len(list((out / "_making").rglob("train-*.parquet")))


def wait_for(out: Path, num_shards: int, process: "subprocess.Popen[str]") -> None:
    while num_made(out) < num_shards and process.poll() is None:
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()


# --- a Ray cluster of nodes on this machine ---


class Cluster:
    """A Ray cluster of nodes with one core each; each node is a process tree of its own."""

    def __init__(self) -> None:
        self.address = ""
        self.nodes: list[subprocess.Popen[str]] = []

    def start_head(self) -> None:
        self.nodes.append(self._start("--head", "--port", "0", "--include-dashboard", "false"))
        assert self.nodes[0].stdout
        for line in self.nodes[0].stdout:
            if found := re.search(r"--address='([\d.:]+)'", line):
                self.address = found[1]
                break
        threading.Thread(target=self.nodes[0].stdout.read, daemon=True).start()

    def add(self) -> None:
        self.nodes.append(self._start("--address", self.address))

    def lose(self, number: int) -> None:
        """Kills a node without a warning, as a spot machine is lost."""
        os.killpg(self.nodes[number].pid, signal.SIGKILL)

    def end(self) -> None:
        for node in self.nodes:
            if node.poll() is None:
                os.killpg(node.pid, signal.SIGKILL)

    def _start(self, *options: str) -> "subprocess.Popen[str]":
        ray = str(Path(sys.executable).parent / "ray")
        return subprocess.Popen(
            [ray, "start", "--block", "--num-cpus", "1", *options],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=ENVIRONMENT,
        )


@contextmanager
def ray_cluster(num_nodes: int) -> Iterator[Cluster]:
    cluster = Cluster()
    try:
        cluster.start_head()
        for _ in range(num_nodes - 1):
            cluster.add()
        time.sleep(10)
        yield cluster
    finally:
        cluster.end()


# --- the same clone ---


def local(workers: int) -> Callable[[Path], str]:
    return lambda out: finish(start(out, "--workers", workers))


def array(out: Path) -> str:
    """Runs three tasks of a Slurm array at the same time."""
    tasks = [
        start(
            out,
            "--runner",
            "slurm",
            SLURM_ARRAY_TASK_ID=str(index),
            SLURM_ARRAY_TASK_MIN="0",
            SLURM_ARRAY_TASK_MAX="2",
        )
        for index in range(3)
    ]
    return "".join([finish(task) for task in tasks])


def on_ray(out: Path) -> str:
    with ray_cluster(2) as cluster:
        return finish(start(out, "--runner", "ray", "--address", cluster.address))


def on_ray_from_elsewhere(out: Path) -> str:
    """Uses a relative OUT while the nodes have other working directories than the driver."""
    with ray_cluster(2) as cluster:
        finish(start(out.name, "--runner", "ray", "--address", cluster.address, PWD=str(out.parent)))
    return "OUT is relative, and the nodes have another working directory"


def printed_script(out: Path) -> str:
    """Runs the printed script for a relative OUT by bash from the root directory, one task after the other."""
    shims = out.parent / "bin"
    shims.mkdir(exist_ok=True)
    (shims / "srun").write_text('#!/bin/bash\nexec "$@"\n')
    (shims / "srun").chmod(0o755)
    text = finish(start(out.name, "--runner", "slurm", "--tasks", 2, "--print", PWD=str(out.parent)))
    (out.parent / "job.sh").write_text(text)
    assert "--revision sha256:" in text and f" {out} " in text
    for index in range(2):
        subprocess.run(
            ["bash", str(out.parent / "job.sh")], check=True, cwd="/", capture_output=True,
            env={**ENVIRONMENT, "PATH": f"{shims}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": str(index),
                 "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_MAX": "1"},
        )  # fmt: skip
    return "OUT is relative; the script names the model's revision and runs from /"


# --- faults ---


def killed_workers(out: Path) -> str:
    """Kills a worker every four seconds, at most twelve times."""
    process, kills = start(out, "--workers", 2), 0
    while process.poll() is None:
        time.sleep(4)
        found = subprocess.run(
            ["pgrep", "-P", str(process.pid), "-f", "runners.worker"], capture_output=True, text=True, check=False
        ).stdout.split()
        if found and kills < 12 and num_made(out):
            os.kill(int(random.choice(found)), signal.SIGKILL)
            kills += 1
    finish(process)
    return f"{kills} workers killed"


def start_on_ray(out: Path, cluster: Cluster) -> "subprocess.Popen[str]":
    """Starts a run and returns it once it has made four shards."""
    process = start(out, "--runner", "ray", "--address", cluster.address)
    wait_for(out, 4, process)
    return process


def lost_node(out: Path) -> str:
    with ray_cluster(2) as cluster:
        process = start_on_ray(out, cluster)
        cluster.lose(1)
        made = num_made(out)
        cluster.add()
        finish(process)
    return f"a node lost after {made} of {NUM_SHARDS} shards, another one added"


def killed_driver(out: Path) -> str:
    with ray_cluster(2) as cluster:
        process = start_on_ray(out, cluster)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        made = num_made(out)
        finish(start(out, "--runner", "ray", "--address", cluster.address))
    return f"the driver killed after {made} of {NUM_SHARDS} shards and started again"


def two_runs(out: Path) -> str:
    runs = [start(out, "--workers", 1) for _ in range(2)]
    for one in runs:
        assert "digest" in finish(one)
    return "two complete runs at the same time"


class S3:
    """An S3 server that counts its requests and lets a share of them fail."""

    def __init__(self, share_failing: float) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        self.app = DomainDispatcherApplication(create_backend_app)
        self.counts: Counter[str] = Counter()
        self.num_failed, self.share_failing = 0, share_failing
        self.rng = random.Random(0)
        self.server = make_server("127.0.0.1", 0, self, threaded=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __call__(self, environ: Any, start_response: Any) -> Any:
        is_list = "list-type" in environ.get("QUERY_STRING", "")
        self.counts["LIST" if is_list else environ["REQUEST_METHOD"]] += 1
        if self.rng.random() < self.share_failing:
            self.num_failed += 1
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            body = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
            start_response("503 Slow Down", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [body]
        return self.app(environ, start_response)


def serve_s3(share_failing: float, bucket: str) -> tuple[S3, dict[str, str]]:
    """Starts a server with an empty bucket; returns it and the environment that reaches it.

    Servers of one process share their buckets.
    """
    import logging

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = S3(share_failing)
    settings = {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server.server_port}",
    }
    os.environ.update(settings)
    RemoteStorage(f"s3://{bucket}").fs.clear_instance_cache()
    RemoteStorage(f"s3://{bucket}").fs.mkdir(bucket)
    return server, settings


def fetch(url: str, out: Path) -> None:
    storage = open_storage(url)
    for name in storage.names(""):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(storage.read(name))


def on_s3(out: Path) -> str:
    server, settings = serve_s3(0.0, "clones")
    finish(start("s3://clones/x", "--workers", 1, **settings))
    counts = sorted(server.counts.items())
    fetch("s3://clones/x", out)
    return "requests per shard: " + ", ".join(f"{count / NUM_SHARDS:.1f} {kind}" for kind, count in counts)


def on_faulty_s3(out: Path) -> str:
    """Starts a run and, ten seconds later, a second one; then downloads the clone to `out`."""
    server, settings = serve_s3(0.05, "faulty")
    first = start("s3://faulty/x", "--workers", 1, **settings)
    time.sleep(10)
    second = start("s3://faulty/x", "--workers", 1, **settings)
    for one in (first, second):
        finish(one)
    fetch("s3://faulty/x", out)
    return f"two runs at the same time, {server.num_failed} of {server.counts.total()} requests failed"


# --- overheads ---


def rate(out: Path, *options: object, **environment: str) -> float:
    """Returns images per second from the first finished shard to the last one, so without start-up."""
    shutil.rmtree(out, ignore_errors=True)
    finish(start(out, "--shards", f"0:{NUM_SHARDS}", *options, **environment))
    times = sorted(path.stat().st_mtime for path in (out / "_making").rglob("train-*.parquet"))
    return PER_SHARD * (len(times) - 1) / (times[-1] - times[0])


def overheads(work: Path) -> list[str]:
    one, two, ray = [], [], []
    with ray_cluster(2) as cluster:
        for _ in range(NUM_ROUNDS):
            one.append(rate(work / "rate", "--workers", 1))
            two.append(rate(work / "rate", "--workers", 2))
            ray.append(rate(work / "rate", "--runner", "ray", "--address", cluster.address, "--workers", 2))
    scaling = [b / a for a, b in zip(one, two, strict=True)]
    slower = [b / a for a, b in zip(two, ray, strict=True)]

    def summary(values: list[float]) -> str:
        return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"

    return [
        f"- images/s of two workers / one worker (one thread each): **{summary(scaling)}**",
        f"- images/s of two Ray actors on two nodes / two local workers: **{summary(slower)}**",
        f"- images/s of one worker: {summary(one)}; of two workers: {summary(two)}; of two Ray actors: {summary(ray)}",
        "",
        f"Median (range) over {NUM_ROUNDS} rounds, in turns.",
    ]


def main(work: Path) -> None:
    rows: list[str] = []
    expected: dict[str, str] = {}
    cases: list[tuple[str, Callable[[Path], str]]] = [
        ("local, 1 worker", local(1)),
        ("local, 2 workers", local(2)),
        ("local, 3 workers", local(3)),
        ("Slurm array of 3 tasks", array),
        ("Ray, 2 nodes", on_ray),
        ("Ray from another directory", on_ray_from_elsewhere),
        ("the printed script from another directory", printed_script),
        ("a worker killed every four seconds", killed_workers),
        ("a Ray node lost, another added", lost_node),
        ("the Ray driver killed, started again", killed_driver),
        ("two complete runs", two_runs),
        ("s3, one worker", on_s3),
        ("s3, 5 % failed requests", on_faulty_s3),
    ]
    for name, make in cases:
        out, begin = work / re.sub(r"\W+", "-", name), time.perf_counter()
        message = make(out)
        found = digests(out)
        expected = expected or found
        same = found == expected
        what = "" if "digest" in message or "this task's shards" in message else message
        rows.append(f"| {name} | {what} | {len(found)} | {'identical' if same else 'DIFFERS'} |")
        print(rows[-1], f"{time.perf_counter() - begin:.0f} s", flush=True)
        assert same, sorted(set(found.items()) ^ set(expected.items()))[:6]
        if name != cases[0][0]:
            shutil.rmtree(out)
    record("scale-runners", "The same clone with every runner and through every fault", [
        f"`make {RECIPE} {' '.join(map(str, OPTIONS))}`: {NUM_IMAGES} images, {NUM_SHARDS} shards.",
        "The sha256 of every file is compared with the clone of one local worker.",
        "",
        "| run | what happened | files | compared with one worker |",
        "|---|---|---|---|",
        *rows,
        "",
        "## Overhead",
        "",
        *overheads(work),
    ])  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
