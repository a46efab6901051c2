"""Metrics to trackio, as its environment variables say; look at them with `trackio show`.

The project is TRACKIO_PROJECT or "fakeit"; a resumed run has the name that it had, and goes on there.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def open_logger(
    out: Path, name: str, config: dict[str, Any], start: int
) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """A function of step and metrics."""
    import trackio

    project = os.environ.get("TRACKIO_PROJECT", "fakeit")
    trackio.init(project=project, name=name, resume="allow", config=config)
    try:
        yield lambda step, metrics: trackio.log(metrics, step=step)
    finally:
        trackio.finish()
