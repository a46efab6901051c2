"""A worker process of the local runner: makes one shard after another, as requested on its standard input.

    python -m builders.runners.worker

Invariant: it ends when its parent does. Input: a `Task`, then (shard, execution) for each shard. Output: (kept, first,
broken, low) for each batch, and for each shard the `Problem` that it ended with, or None. All messages are pickled. The
process does not import the script that started the run.
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
    """Makes shards until standard input ends."""
    out = os.fdopen(os.dup(1), "wb")
    # Output of libraries goes to stderr, so that it does not mix with the messages.
    os.dup2(2, 1)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # The parent handles Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    requests: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=_read_requests, args=(sys.stdin.buffer, requests), daemon=True).start()
    task = requests.get()
    while True:
        shard, execution = requests.get()
        problem = attempt(task, shard, execution, lambda *counts: _send(out, counts))
        _send(out, problem)


def _read_requests(requests: BinaryIO, found: "queue.Queue[Any]") -> None:
    while True:
        try:
            found.put(pickle.load(requests))
        except BaseException:
            # The parent has ended, perhaps in the middle of a message, or has closed the pipe to end this process.
            os._exit(0)


def _send(out: BinaryIO, message: object) -> None:
    try:
        pickle.dump(message, out)
        out.flush()
    except BrokenPipeError:
        os._exit(0)


if __name__ == "__main__":
    main()
