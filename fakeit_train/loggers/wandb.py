"""Sends metrics to Weights & Biases, configured by its environment variables (WANDB_PROJECT, WANDB_MODE=offline, …).

The run's name is also its W&B id, so that a resumed run continues the same W&B run.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def open_logger(
    out: Path, name: str, config: dict[str, Any], start: int
) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """Yields a function that logs the metrics of a step."""
    import wandb

    run = wandb.init(dir=out, name=name, id=name, resume="allow", config=config)
    try:
        yield lambda step, metrics: run.log(metrics, step=step)
    finally:
        run.finish()
