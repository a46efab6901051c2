"""Fills the disk during `make`: one error message, no torn files, and it continues when there is room.

Needs root, for a small tmpfs.

python -m tests.acceptance.accept_full_disk
"""

import random
import subprocess
import tarfile
import tempfile
from pathlib import Path

from builders.format.open_clone import open_clone
from builders.verification.verify_clone import verify_clone
from tests.acceptance.accept_kill import digests, finished_shards
from tests.acceptance.record import command, record, run

NUM_SIZES = 10
MAKE = ("make", "digits_sd/c_cfg2")
OPTIONS = ("--images-per-class", 40, "--shard-size", 40, "--num-inference-steps", 4, "--batch-size", 20, "--workers", 2)


def is_whole(path: Path) -> bool:
    """Returns whether a tar ends with its marker and has all three members of each sample."""
    with tarfile.open(path) as tar:
        return len(tar.getnames()) % 3 == 0 and path.read_bytes().endswith(bytes(1024))


def fill_and_continue(disk: Path, size: int, expected: dict[str, str]) -> str:
    out = disk / "out"
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", disk], check=True)
    try:
        ended = subprocess.run(command("build", *MAKE, out, *OPTIONS), capture_output=True, text=True)
        message = [line for line in ended.stderr.splitlines() if line.startswith("fakeit-build:")]
        # Exit status 1 if the disk is full for both workers, 2 if it is for the run that directs them.
        ending = {1: "no worker is left", 2: "what is finished is kept"}.get(ended.returncode, "?")
        assert len(message) <= 4 and "No space left on device" in message[0] and ending in message[-1], ended
        finished = finished_shards(out)
        assert all(is_whole(path) for path in out.rglob("*.tar") if not path.name.startswith("."))
        assert not (out / "clone.json").exists() and not list(out.rglob("*.tmp"))
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        run("build", *MAKE, out, *OPTIONS)
        kept = sum(finished_shards(out).get(name) == stamp for name, stamp in finished.items())
        assert kept == len(finished) and digests(out) == expected
        return f"| {size} KiB | {len(finished)} of {len(open_clone(out).manifest.shards)} | {kept} | identical |"
    finally:
        subprocess.run(["umount", disk], check=True)


def main() -> None:
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        whole, disk = Path(name) / "whole", Path(name) / "disk"
        disk.mkdir()
        run("build", *MAKE, whole, *OPTIONS)
        assert list(verify_clone(str(whole), deep=True)) == []
        expected = digests(whole)
        needed = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file()) // 1024
        sizes = sorted(rng.randrange(needed // 10, needed) for _ in range(NUM_SIZES))
        rows = [fill_and_continue(disk, size, expected) for size in sizes]
    lines = [
        f"`{' '.join(map(str, (*MAKE, 'OUT', *OPTIONS)))}` on disks of {NUM_SIZES} random sizes;",
        f"the clone needs {needed} KiB. Each time `make` ends with exit status 1 or 2 and says why (No space left",
        "on device), leaves no temporary file, and every tar is whole. Then the disk grows, the same command runs again,",
        "and the sha256 of every file equals that of an undisturbed run.",
        "",
        "| disk | shards finished when the disk was full | of these kept (same inode and time) | files at the end |",
        "|---|---|---|---|",
        *rows,
    ]
    record("full-disk", "Making a clone on a full disk", lines)


if __name__ == "__main__":
    main()
