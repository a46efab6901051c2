"""Kills `make` (SIGKILL) at 20 random moments and runs it again: the same files, and no finished shard is made twice.

python -m tests.acceptance.accept_kill
"""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from builders.classes.class_list import read_class_table
from builders.diffusion.pin import embedded_dir
from builders.format.open_clone import open_clone
from tests.acceptance.record import command, record, run
from tests.tiny_pipeline import write_tiny_checker

NUM_KILLS = 20
MAKE = ("make", "digits_sd/c_cfg2")
OPTIONS: tuple[object, ...] = (
    "--images-per-class", 96, "--shard-size", 40, "--batch-size", 20, "--num-inference-steps", 8, "--safety", "drop",
)  # fmt: skip
MAX_FLAGGED = 0.5
"""Largest share of flagged images of any class; then ten attempts are enough for every image."""


def write_checked_model(out: Path) -> None:
    """Writes the embedded model with a random safety checker that flags a quarter of the images over all classes."""
    shutil.copytree(embedded_dir(), out)
    prompts = tuple(entry.name for entry in read_class_table("digits"))
    for seed in range(100):
        if write_tiny_checker(out, 0.25, prompts, 8, seed) < MAX_FLAGGED:
            return
    raise AssertionError("no checker found that flags few enough images of every class")


def digests(out: Path) -> dict[str, str]:
    paths = (path for path in sorted(out.rglob("*")) if path.is_file())
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def finished_shards(out: Path) -> dict[str, tuple[int, int]]:
    """Returns inode and modification time of every shard that has its sidecar or its final path."""
    sidecars = list((out / "_making").rglob("train-*.parquet"))
    made = [tar for sidecar in sidecars for tar in sidecar.parent.glob(f"{sidecar.stem}-*.tar")]
    found = [path for path in [*made, *(out / "data").rglob("*.tar")] if path.exists() and path.name[0] != "."]
    return {path.name[: len("train-000000")]: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def is_generating(out: Path, since: float) -> bool:
    """Returns whether a shard is finished and a process started after `since` is writing another one."""
    try:
        times = [path.stat().st_mtime for path in (out / "_making").rglob(".*.tar.*.tmp")]
    # A file can be renamed between the listing and its stat.
    except FileNotFoundError:
        return False
    return bool(finished_shards(out)) and any(written > since for written in times)


def kill_at(out: Path, options: tuple[object, ...], delay: float, *, from_start: bool) -> bool:
    """Starts `make`, kills its whole process group, and returns whether it was still running.

    The kill comes `delay` seconds after the start. Without `from_start` the delay begins once a shard is finished and
    the run is generating the next one.
    """
    process = subprocess.Popen(
        command("build", *MAKE, out, *options, "--workers", 2), start_new_session=True, stdout=-3, stderr=-3
    )
    started = time.time()
    while not from_start and process.poll() is None and not is_generating(out, started):
        time.sleep(0.01)
    try:
        process.wait(delay)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True


def main() -> None:
    rng = random.Random(0)
    rows: list[str] = []

    def add_row(row: str) -> None:
        rows.append(row)
        print(row, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        write_checked_model(Path(folder) / "model")
        options = (*OPTIONS, "--model", Path(folder) / "model")
        run("build", *MAKE, whole, *options)
        dropped = open_clone(whole).manifest.verdict_totals().remade
        expected, kills, after_first, remade = digests(whole), 0, 0, 0
        num_shards = len(list((whole / "data").rglob("*.tar")))
        seen: dict[str, tuple[int, int]] = {}
        while kills < NUM_KILLS:
            from_start = kills % 5 == 0
            delay = rng.uniform(0.1, 15) if from_start else rng.uniform(0, 4)
            was_running = kill_at(killed, options, delay, from_start=from_start)
            now = finished_shards(killed)
            remade += sum(now.get(name) != stamp for name, stamp in seen.items())
            seen = now
            if was_running:
                kills += 1
                after_first += bool(now)
                since = "the start" if from_start else "generation continues"
                add_row(f"| {kills} | {delay:.2f} s after {since} | {len(now)} of {num_shards} shards finished |")
            else:
                same = digests(killed) == expected
                add_row(f"| – | `make` ended before the kill | identical: {same} |")
                assert same
                killed, seen = Path(folder) / f"killed-{kills}", {}
        run("build", *MAKE, killed, *options)
        last = finished_shards(killed)
        remade += sum(last[name] != stamp for name, stamp in seen.items())
        same = digests(killed) == expected
        lines = [
            f"`make {MAKE[1]} {' '.join(map(str, OPTIONS))}`, {num_shards} shards of 40 images. The",
            "uninterrupted run has one worker, the killed one has two (SIGKILL to the whole process group).",
            f"{kills} kills at random moments, {after_first} of them after a shard was finished. The safety checker (random",
            f"weights) rejected {sum(dropped.values())} attempts at images of {len(dropped)} classes.",
            "",
            f"- files: {len(expected)}, sha256 of every file equal to the uninterrupted run's: **{same}**",
            f"- finished shards that were made again (inode or modification time changed): **{remade}**",
            "",
            "| kill | time of the kill | state |",
            "|---|---|---|",
            *rows,
        ]
        record("kill", "`make` killed and run again: the same bytes", lines)
        assert same and remade == 0 and after_first >= 10 and dropped


if __name__ == "__main__":
    main()
