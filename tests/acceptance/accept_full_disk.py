"""A full disk: one sentence, whole files only, and it goes on when there is room. Needs root, for a small tmpfs.

python tests/acceptance/accept_full_disk.py
"""

import random
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from builders.format.open_clone import open_clone
from builders.verification.verify_clone import verify_clone
from tests.acceptance.accept_kill import digests, finished_shards
from tests.acceptance.record import command, record, run

NUM_SIZES = 10
ASKED = ("make", "digits_sd/c_cfg2")
OPTIONS = ("--images-per-class", 40, "--shard-size", 40, "--num-inference-steps", 4, "--batch-size", 20, "--workers", 2)


def is_whole(path: Path) -> bool:
    """Whether a tar ends as a tar does and has all members of its samples."""
    with tarfile.open(path) as tar:
        return len(tar.getnames()) % 3 == 0 and path.read_bytes().endswith(bytes(1024))


def fill_and_go_on(disk: Path, size: int, expected: dict[str, str]) -> str:
    out = disk / "out"
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", disk], check=True)
    try:
        ended = subprocess.run(command("build", *ASKED, out, *OPTIONS), capture_output=True, text=True)
        message = ended.stderr.strip().splitlines()
        assert ended.returncode == 2 and len(message) == 1 and "No space left on device" in message[0], ended
        finished = finished_shards(out)
        assert all(is_whole(path) for path in out.rglob("*.tar") if not path.name.startswith("."))
        assert not (out / "clone.json").exists() and not list(out.rglob("*.tmp"))
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        run("build", *ASKED, out, *OPTIONS)
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
        run("build", *ASKED, whole, *OPTIONS)
        assert list(verify_clone(str(whole), deep=True)) == []
        expected = digests(whole)
        needed = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file()) // 1024
        sizes = sorted(rng.randrange(needed // 10, needed) for _ in range(NUM_SIZES))
        rows = [fill_and_go_on(disk, size, expected) for size in sizes]
    lines = [
        f"`{' '.join(map(str, (*ASKED, 'OUT', *OPTIONS)))}` on disks of {NUM_SIZES} random sizes;",
        f"the clone needs {needed} KiB. Each time: exit status 2, one sentence (No space left on device), no temporary file",
        "left behind, every tar there whole;",
        "then more room, the same command again, and the sha256 of every file equal to an undisturbed run's.",
        "",
        "| disk | shards finished when it was full | of them kept (same inode and time) | files in the end |",
        "|---|---|---|---|",
        *rows,
    ]
    record("full-disk", "Made on a disk that was full", lines)


if __name__ == "__main__":
    main()
