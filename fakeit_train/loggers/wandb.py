"""Metrics to Weights & Biases, as its environment variables say (WANDB_PROJECT, WANDB_MODE=offline, …).

The run's name and id are those of the run directory, so that a resumed run goes on in the same place.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def open_logger(out: Path, config: dict[str, Any], start: int) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """A function of step and metrics."""
    import wandb

    name = hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:16]
    run = wandb.init(dir=out, name=out.name, id=name, resume="allow", config=config)
    try:
        yield lambda step, metrics: run.log(metrics, step=step)
    finally:
        run.finish()
