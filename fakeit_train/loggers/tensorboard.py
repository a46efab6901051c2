"""Sends metrics to TensorBoard, as event files in the subfolder `tensorboard` of the run.

`tensorboard --logdir RUN` shows them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def open_logger(
    out: Path, name: str, config: dict[str, Any], start: int
) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """Yields a function that logs the metrics of a step; TensorBoard hides older values of steps after `start`."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(out / "tensorboard"), purge_step=start + 1 if start else None)  # type: ignore[no-untyped-call]

    def log(step: int, metrics: dict[str, float]) -> None:
        for metric, value in metrics.items():
            writer.add_scalar(metric, value, step)  # type: ignore[no-untyped-call]
        writer.flush()  # type: ignore[no-untyped-call]

    try:
        yield log
    finally:
        writer.close()  # type: ignore[no-untyped-call]
