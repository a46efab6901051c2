"""Gives the GPUs of this node to the runs of studies, each to one command at a time.

A lock for each GPU, named by its UUID, is shared by all studies on the node. A command sees its own GPUs alone, by
CUDA_VISIBLE_DEVICES. Without a GPU, commands run on the CPU.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from builders.errors import UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"
SECONDS_BETWEEN_TRIES = 0.5
CHECK = "import torch; assert torch.ones(8, device='cuda').sum().item() == 8"
"""A small computation that a broken GPU fails."""


def list_gpus() -> list[str]:
    """Returns the UUIDs of the GPUs that CUDA_VISIBLE_DEVICES leaves to this process; [] without a GPU."""
    try:
        command = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    by_index = dict(line.split(", ") for line in listing.strip().splitlines())
    visible = os.environ.get(VISIBLE)
    if visible is None:
        return list(by_index.values())
    found = []
    for name in (name.strip() for name in visible.split(",") if name.strip()):
        uuid = next((uuid for uuid in by_index.values() if uuid.startswith(name)), by_index.get(name))
        if uuid is None and not name.startswith("MIG-"):
            # CUDA ignores what follows an unknown name, such as -1.
            break
        found.append(uuid or name)
    return found


class GpuQueue:
    """The GPUs of this node that work."""

    def __init__(self, gpus: Sequence[str], folder: Path = Path(tempfile.gettempdir()) / "fakeit-gpus") -> None:
        self.gpus, self.folder = list(gpus), folder
        self.has_gpus = bool(gpus)
        self._changing = threading.Lock()
        self._descriptors: dict[str, int] = {}

    def check_count(self, count: int) -> None:
        """Checks that there are `count` working GPUs, or none from the start.

        Raises:
            UserError: there are fewer.
        """
        if self.has_gpus and count > len(self.gpus):
            raise UserError(f"--gpus-per-run {count} needs {count} working GPUs, but this machine has {len(self.gpus)}")

    @contextmanager
    def take(self, count: int) -> Iterator[list[str]]:
        """Waits for `count` GPUs and yields their UUIDs; [] on a machine without a GPU.

        Raises:
            UserError: there are fewer working GPUs.
        """
        if not self.has_gpus:
            yield []
            return
        self._make_folder()
        while True:
            self.check_count(count)
            with ExitStack() as released:
                taken: list[str] = []
                for gpu in list(self.gpus):
                    descriptor = _lock(self.folder / f"{gpu}.lock")
                    if descriptor is None:
                        continue
                    released.callback(os.close, descriptor)
                    self._descriptors[gpu] = descriptor
                    taken.append(gpu)
                    if len(taken) == count:
                        yield taken
                        return
            # Some GPUs may be held by a study that waits for ours, so they were released.
            time.sleep(SECONDS_BETWEEN_TRIES)

    def held(self, gpus: Sequence[str]) -> list[int]:
        """Returns the file descriptors that hold the locks of taken GPUs.

        A command that inherits them keeps the locks until it ends, even if this process is killed before. Under torchrun,
        that is torchrun, whose ranks inherit nothing; their run's folder has a lock of its own.
        """
        return [self._descriptors[gpu] for gpu in gpus]

    def _make_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with suppress(PermissionError):
            # Other users' studies make locks there, too.
            self.folder.chmod(0o777)

    def drop_broken(self, gpus: Sequence[str]) -> list[str]:
        """Leaves out those of some GPUs that fail a small computation; returns them."""
        broken = [gpu for gpu in gpus if not _works(gpu)]
        with self._changing:
            self.gpus = [gpu for gpu in self.gpus if gpu not in broken]
        return broken


def _lock(path: Path) -> int | None:
    """Returns a file descriptor that holds the lock of a file; None if another holds it."""
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    with suppress(PermissionError):
        os.fchmod(descriptor, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _works(gpu: str) -> bool:
    command, environment = [sys.executable, "-c", CHECK], {**os.environ, VISIBLE: gpu}
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0
