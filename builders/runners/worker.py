"""A worker process of the local runner: makes one shard after another, told over its standard input and output.

    python -m builders.runners.worker

Invariant: it ends when its parent does. In: a `Task`, then (shard, execution) each; out: (kept, first, broken), or the
`Problem` or None that a shard ended with, all pickled. It runs nothing of the script that started the run.
"""

import os
import pickle
import queue
import signal
import sys
import threading
from typing import Any, BinaryIO

from builders.coordination.attempt import attempt


def main() -> None:
    """Works until standard input ends."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever libraries print must not mix with the answers
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    orders: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, orders), daemon=True).start()
    task = orders.get()
    while True:
        shard, execution = orders.get()
        problem = attempt(task, shard, execution, lambda *counts: _say(out, counts))
        _say(out, problem)


def _read(orders: BinaryIO, found: "queue.Queue[Any]") -> None:
    while True:
        try:
            found.put(pickle.load(orders))
        except BaseException:  # the parent has ended, perhaps in the middle of a message, or wants this process to
            os._exit(0)


def _say(out: BinaryIO, message: object) -> None:
    try:
        pickle.dump(message, out)
        out.flush()
    except BrokenPipeError:
        os._exit(0)


if __name__ == "__main__":
    main()
