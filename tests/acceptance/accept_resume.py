"""Kills a training run in two processes (SIGKILL) ten times and resumes it: the weights equal an uninterrupted run's.

python -m tests.acceptance.accept_resume
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from safetensors.torch import load_file

from builders.format.open_clone import open_clone
from tests.acceptance.record import ROOT, record, run

NUM_KILLS = 10
EPOCHS, BATCH = 12, 56
SETTINGS = (f"num_epochs={EPOCHS}", f"data.batch_size={BATCH}", "log_keys=true", "checkpoint_every=5", "log_every=1")
TOLERANCE = 1e-6
"""Largest allowed difference of any weight. Sums over two processes have a fixed order, so 0 is expected."""


def start(data: Path, out: Path) -> subprocess.Popen[bytes]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command = [
        *launch,
        "fakeit_train",
        "digits",
        "--data",
        str(data),
        "--out",
        str(out),
        "--resume",
        "--set",
        *SETTINGS,
    ]
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdout=-3, stderr=-3)


def batches(out: Path) -> list[list[str]]:
    """Returns the keys of the global batches, joined over the ranks in their order."""
    ranks = [
        {line["step"]: line["keys"] for line in map(json.loads, path.read_text().splitlines())}
        for path in sorted(out.glob("keys-*.jsonl"))
    ]
    return [[key for rank in ranks for key in rank[step]] for step in sorted(ranks[0])]


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def saved_step(out: Path) -> int:
    latest = out / "checkpoint" / "latest.json"
    return int(json.loads(latest.read_text())["step"]) if latest.exists() else 0


def kill_at(data: Path, out: Path, delay: float, *, from_start: bool) -> bool:
    """Kills the process group `delay` seconds after the start or the first step; returns whether it was running."""
    process, before = start(data, out), num_lines(out)
    while not from_start and process.poll() is None and num_lines(out) <= before:
        time.sleep(0.02)
        # A resumed run first drops the lines of the steps that it repeats.
        before = min(before, num_lines(out))
    try:
        process.wait(delay)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True


def num_lines(out: Path) -> int:
    path = out / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def largest_difference(first: Path, second: Path) -> float:
    weights = [load_file(out / "backbone.safetensors") for out in (first, second)]
    assert set(weights[0]) == set(weights[1])
    return max(float((weights[0][name].double() - weights[1][name].double()).abs().max()) for name in weights[0])


def main() -> None:
    dice = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        data, whole, killed = (Path(folder) / name for name in ("clone", "whole", "killed"))
        subprocess.run([sys.executable, "-m", "builders.embedded.digits", f"{folder}/scans"], check=True, cwd=ROOT)
        run("build", "make", "real_images/train", data, "--source", f"{folder}/scans/train", "--shard-size", 100)
        assert start(data, whole).wait() == 0
        rows: list[str] = []
        while len(rows) < NUM_KILLS:
            before, from_start = saved_step(killed), len(rows) % 5 == 4
            delay = dice.uniform(0, 12 if from_start else 2.5)
            assert kill_at(data, killed, delay, from_start=from_start), (
                "the run ended before the last kill; increase EPOCHS"
            )
            assert saved_step(killed) < len(losses(whole)), "the run ended before the last kill; increase EPOCHS"
            since = "the start" if from_start else "its first step"
            rows.append(f"| {len(rows) + 1} | {delay:.1f} s after {since} | {before} | {saved_step(killed)} |")
            print(rows[-1], flush=True)
        assert start(data, killed).wait() == 0
        difference = largest_difference(whole, killed)
        seen, num_samples = batches(killed), len(open_clone(data))
        per_epoch = num_samples // BATCH
        epochs = [
            Counter(key for batch in seen[e * per_epoch : (e + 1) * per_epoch] for key in batch) for e in range(EPOCHS)
        ]
        left_out = [frozenset(clone_keys(data)) - set(epoch) for epoch in epochs]
        record("resume", "Training in two processes, killed and resumed", [
            f"`digits` on {num_samples:,} images, batches of {BATCH}, {EPOCHS} epochs, two gloo processes. SIGKILL goes to the",
            f"whole process group at {NUM_KILLS} random moments, and the same command runs again each time. Checkpoints are",
            "written every five steps.",
            "",
            f"- largest difference of any weight from the uninterrupted run's: **{difference:.3g}** (bound {TOLERANCE:g})",
            f"- losses of all {len(losses(whole))} steps equal: **{losses(killed) == losses(whole)}**",
            f"- global batches equal: **{seen == batches(whole)}**",
            f"- largest number of times that a key occurs in an epoch: **{max(max(epoch.values()) for epoch in epochs)}**",
            f"- keys left out of each epoch: {', '.join(str(len(keys)) for keys in left_out)} (fewer than {BATCH}); "
            f"different sets: **{len(set(left_out))} of {EPOCHS}**",
            "",
            "| kill | time of the kill | last checkpoint at the start | last checkpoint at the kill |",
            "|---|---|---|---|",
            *rows,
        ])  # fmt: skip
        assert difference <= TOLERANCE and seen == batches(whole) and losses(killed) == losses(whole)
        assert all(set(epoch.values()) == {1} for epoch in epochs) and len(set(left_out)) == EPOCHS


def clone_keys(data: Path) -> list[str]:
    clone = open_clone(data)
    return [clone.key(number) for number in range(len(clone))]


if __name__ == "__main__":
    main()
