"""Sends metrics to trackio, configured by its environment variables; `trackio show` shows them.

The project is TRACKIO_PROJECT or "fakeit". A resumed run keeps its name and continues the same trackio run.
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
    """Yields a function that logs the metrics of a step."""
    import trackio

    project = os.environ.get("TRACKIO_PROJECT", "fakeit")
    trackio.init(project=project, name=name, resume="allow", config=config)
    try:
        yield lambda step, metrics: trackio.log(metrics, step=step)
    finally:
        trackio.finish()
