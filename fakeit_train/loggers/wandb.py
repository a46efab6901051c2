"""Metrics to Weights & Biases, as its environment variables say (WANDB_PROJECT, WANDB_MODE=offline, …).

The name is the run's id there, too, so that a resumed run goes on in the same place.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def open_logger(
    out: Path, name: str, config: dict[str, Any], start: int
) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """A function of step and metrics."""
    import wandb

    run = wandb.init(dir=out, name=name, id=name, resume="allow", config=config)
    try:
        yield lambda step, metrics: run.log(metrics, step=step)
    finally:
        run.finish()
