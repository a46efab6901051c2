"""`kill -9` at 20 random moments of `make`, run again each time: the same files as without, no finished shard made twice.

python tests/acceptance/accept_kill.py
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from tests.acceptance.record import command, record, run

NUM_KILLS = 20
ASKED = ("make", "digits_sd/c_cfg2")
OPTIONS = ("--images-per-class", 40, "--shard-size", 40, "--num-inference-steps", 8)


def digests(out: Path) -> dict[str, str]:
    paths = (path for path in sorted(out.rglob("*")) if path.is_file())
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def finished_shards(out: Path) -> dict[str, tuple[int, int]]:
    """Inode and modification time of every shard whose sidecar is there, or that lies in its final place."""
    made = [path.with_suffix(".tar") for path in (out / "_making").rglob("train-*.parquet")]
    found = [path for path in [*made, *(out / "data").rglob("*.tar")] if path.exists() and path.name[0] != "."]
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def kill_after(out: Path, seconds: float) -> bool:
    """Starts `make`, kills its whole process group after so long; whether it was still running."""
    process = subprocess.Popen(
        command("build", *ASKED, out, *OPTIONS, "--workers", 2), start_new_session=True, stdout=-3, stderr=-3
    )
    try:
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True


def main() -> None:
    rng = random.Random(0)
    rows: list[str] = []

    def note(row: str) -> None:
        rows.append(row)
        print(row, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        began = time.monotonic()
        run("build", *ASKED, whole, *OPTIONS)
        seconds = time.monotonic() - began
        expected, kills, after_first, seen, remade = digests(whole), 0, 0, dict[str, tuple[int, int]](), 0
        while kills < NUM_KILLS:
            # The start of Python and the loading of the model take much of a run: kill before, in and after the making.
            moment = rng.uniform(0.1, 0.4 * seconds) if kills % 4 == 0 else rng.uniform(0.4 * seconds, 0.9 * seconds)
            before = finished_shards(killed)
            if not kill_after(killed, moment):
                same = digests(killed) == expected
                note(f"| – | {moment:.1f} s | run ended by itself, identical: {same} |")
                assert same
                killed = Path(folder) / f"killed-{kills}"
                seen = {}
                continue
            now = finished_shards(killed)
            remade += sum(now.get(name) != stamp for name, stamp in before.items())
            kills += 1
            after_first += bool(now)
            seen |= now
            note(f"| {kills} | {moment:.1f} s | {len(now)} of 10 shards finished |")
        run("build", *ASKED, killed, *OPTIONS)
        last = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (killed / "data").rglob("*.tar")}
        remade += sum(last[name] != stamp for name, stamp in seen.items())
        same = digests(killed) == expected
        lines = [
            f"`make {ASKED[1]} {' '.join(map(str, OPTIONS))}`, 10 shards of 40 images; uninterrupted with one worker,",
            f"killed with two (the whole process group, SIGKILL). {kills} kills, {after_first} of them after a finished shard.",
            "",
            f"- files: {len(expected)}, sha256 of every file equal to the uninterrupted run's: **{same}**",
            f"- finished shards that were made again (inode or modification time changed): **{remade}**",
            "",
            "| kill | after | state |",
            "|---|---|---|",
            *rows,
        ]
        record("kill", "Killed and run again: the same bytes", lines)
        assert same and remade == 0 and after_first >= 10


if __name__ == "__main__":
    main()
