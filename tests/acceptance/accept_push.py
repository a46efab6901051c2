"""`kill -9` at ten moments of a push through a throttled Hub, run again each time: what arrives, and what it cost.

python tests/acceptance/accept_push.py
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from tests.acceptance.record import command, record
from tests.loopback.hub import Hub, hub_environment
from tests.loopback.server import running
from tests.noise import write_noise_clone

NUM_KILLS = 10
NUM_SHARDS = 400
BYTES_PER_SECOND = 400_000
"""Of each connection; the client keeps five."""
REPO = "user/noise"


def start(hub: Hub, clone: Path, home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("build", "push", clone, REPO), env=hub_environment(hub, home), start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def num_commits(hub: Hub) -> int:
    """Commits that have landed in the pull request."""
    return sum(name.startswith("POST") and "/commit/" in name for name in hub.traffic.requests.elements())


def kill_when(hub: Hub, clone: Path, home: Path, num_bytes: float) -> bool:
    """Pushes until the Hub has received so much, and kills the process group; whether it was still running."""
    process = start(hub, clone, home)
    while hub.traffic.received < num_bytes and process.poll() is None:
        time.sleep(0.01)
    if process.poll() is not None:
        return False
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True


def main() -> None:
    dice = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        clone = write_noise_clone(Path(folder) / "clone", num_classes=4, per_class=NUM_SHARDS, shard_size=4, side=180)
        local = {str(path.relative_to(clone)): path.read_bytes() for path in clone.rglob("*") if path.is_file()}
        total = sum(map(len, local.values()))
        with running(Hub(Path(folder) / "hub")) as hub:
            hub.traffic.bytes_per_second = BYTES_PER_SECOND
            home, after_commit, seen = Path(folder) / "home", 0, []
            for number in range(NUM_KILLS):
                moment = (number + 0.2 + 0.6 * dice.random()) / NUM_KILLS * total
                assert kill_when(hub, clone, home, moment), "the push ended before its kill"
                after_commit += num_commits(hub) > 0
                seen.append(sorted(path for path in hub.files(REPO) if path != ".gitattributes"))
                print(
                    f"kill {number + 1} at {hub.traffic.received:,} bytes, {num_commits(hub)} commits landed",
                    flush=True,
                )
            process = start(hub, clone, home)
            output, _ = process.communicate()
            arrived = {path: content for path, content in hub.files(REPO).items() if path != ".gitattributes"}
            repo, differing = hub.repos[REPO], arrived.items() ^ local.items()
            lines = [
                f"{len(local)} files, {total:,} bytes, over LFS at {BYTES_PER_SECOND // 1000} kB/s a connection.",
                "",
                "| | | asked |",
                "|---|---|---|",
                f"| `kill -9` of the push's process group | {NUM_KILLS} | 10 |",
                f"| of them after a commit had landed | {after_commit} | at least 5 |",
                f"| files of the clone on `main` after any kill | {sum(map(len, seen))} | 0 or all |",
                f"| exit status of the push that was left alone | {process.returncode} | 0 |",
                f"| files that differ from the clone's, in name or in a byte | {len(dict(differing))} | 0 |",
                f"| bytes that the Hub received / bytes of the clone | {hub.traffic.received / total:.3f} | at most 1.2 |",
                f"| pull requests opened | {len(repo.pulls)} ({', '.join(pull.status for pull in repo.pulls)}) | 1 |",
                f"| commits | {num_commits(hub)} | |",
            ]
            assert process.returncode == 0, output
    record("push", "Pushing to the Hub, killed ten times", lines)
    ok = arrived == local and hub.traffic.received <= 1.2 * total and after_commit >= 5 and not any(seen)
    raise SystemExit(0 if ok else 1)


if __name__ == "__main__":
    main()
