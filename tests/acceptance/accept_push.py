"""Kills a push to the Hub (SIGKILL) ten times and runs it again: checks what arrives, and how many bytes were sent.

python -m tests.acceptance.accept_push     # about 20 minutes, 45 GB of disk

One clone as large as ImageNet-100-SD goes over xet, whose store is a local folder. A small one goes over LFS through a
throttled connection. Over xet, the bytes sent are all bytes that the push wrote by the kernel's count (/proc/PID/io),
which includes its other writes.
"""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.acceptance.record import command, record
from tests.loopback.hub import Hub, hub_environment
from tests.loopback.server import running
from tests.noise import write_noise_clone

NUM_KILLS = 10
LARGE = {"num_classes": 10, "per_class": 6500, "shard_size": 1000, "side": 420}
SMALL = {"num_classes": 4, "per_class": 400, "shard_size": 4, "side": 180}
BYTES_PER_SECOND = 400_000
"""Rate of each LFS connection; the client opens five."""
REPO = "user/noise"
MAX_RATIO = {True: 1.05, False: 1.2}
"""Bound on the bytes sent, as a multiple of the clone's bytes: over xet (True) and over LFS (False)."""


def digests(folder: Path) -> dict[str, str]:
    found = {}
    for path in (path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            found[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def on_main(hub: Hub) -> dict[str, str]:
    """Returns the sha256 of each file of the clone that readers of `main` find."""
    repo = hub.repos[REPO]
    tree = repo.commits[repo.refs["main"]].tree
    return {path: blob.sha256 for path, blob in tree.items() if path != ".gitattributes"}


@dataclass
class Push:
    hub: Hub
    clone: Path
    home: Path
    is_xet: bool
    written: list[int] = field(default_factory=list)
    """Bytes written by each process."""

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command("build", "push", self.clone, REPO), env=hub_environment(self.hub, self.home, xet=self.is_xet),
            start_new_session=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def arrived(self) -> int:
        """Returns the number of bytes that have arrived at the Hub so far."""
        if not self.is_xet:
            return self.hub.traffic.received
        return sum(path.stat().st_size for path in self.hub.xet.rglob("*") if path.is_file())

    def watch(self, process: subprocess.Popen[str], num_bytes: float) -> None:
        """Waits until `num_bytes` have arrived at the Hub or the push has ended."""
        self.written.append(0)
        while process.poll() is None and self.arrived() < num_bytes:
            self._count(process.pid)
            time.sleep(0.005)
        self._count(process.pid)

    def _count(self, pid: int) -> None:
        try:
            lines = Path(f"/proc/{pid}/io").read_text().splitlines()
        except OSError:
            return
        self.written[-1] = int(dict(line.split(": ") for line in lines)["wchar"])

    def sent(self) -> int:
        return sum(self.written) if self.is_xet else self.hub.traffic.received


def killed(clone: Path, folder: Path, is_xet: bool) -> tuple[list[str], bool]:
    """Kills a push ten times; returns the rows of the table, and whether all bounds hold."""
    dice, local = random.Random(0), digests(clone)
    total = sum(path.stat().st_size for path in clone.rglob("*") if path.is_file())
    with running(Hub(folder / "hub")) as hub:
        hub.traffic.bytes_per_second = 0 if is_xet else BYTES_PER_SECOND
        push = Push(hub, clone, folder / "home", is_xet)
        num_killed = num_seen = 0
        for number in range(NUM_KILLS):
            process = push.start()
            push.watch(process, (number + 0.2 + 0.6 * dice.random()) / NUM_KILLS * total)
            num_killed += process.poll() is None
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            num_seen += len(on_main(hub))
            print(f"kill {number + 1} at {push.arrived():,} bytes", flush=True)
        process = push.start()
        push.watch(process, float("inf"))
        output, _ = process.communicate()
        assert process.returncode == 0, output
        differing, ratio = len(dict(on_main(hub).items() ^ local.items())), push.sent() / total
        num_commits = sum(name.startswith("POST") and "/commit/" in name for name in hub.traffic.requests.elements())
        way = "xet" if is_xet else f"LFS, {BYTES_PER_SECOND // 1000} kB/s per connection"
        rows = [
            f"| **{total:,} bytes in {len(local)} files over {way}** | | |",
            f"| kills (SIGKILL) of the process group while the push was running | {num_killed} | {NUM_KILLS} |",
            f"| files of the clone on `main` after the kills | {num_seen} | 0 |",
            f"| files that differ from the clone's in name or content | {differing} | 0 |",
            f"| bytes sent / bytes of the clone | {ratio:.3f} | at most {MAX_RATIO[is_xet]} |",
            f"| pull requests | {len(hub.repos[REPO].pulls)} | 1 |",
            f"| commits | {num_commits} | |",
        ]
    return rows, differing == 0 and ratio <= MAX_RATIO[is_xet] and num_seen == 0 and num_killed == NUM_KILLS


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for is_xet, shape in ((False, SMALL), (True, LARGE)):
            work = Path(folder) / ("xet" if is_xet else "lfs")
            clone = write_noise_clone(work / "clone", **shape)
            shutil.rmtree(work / "clone-images")
            found.append(killed(clone, work, is_xet))
        rows = [row for rows, _ in found for row in rows]
        record("push", "A push to the Hub, killed ten times", ["| | measured | required |", "|---|---|---|", *rows])
    raise SystemExit(0 if all(is_fine for _, is_fine in found) else 1)


if __name__ == "__main__":
    main()
