"""The metrics of a run: always written as JSON lines, and also sent to the loggers that `log_to` names."""

import importlib
import json
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from builders.errors import missing_extra
from fakeit_train import loggers

METRICS_FILE = "metrics.jsonl"
IDENTITY_FILE = "logged-as.txt"
Log = Callable[..., None]
"""A function that is called as log(step=…, name=value, …)."""
MIN_SPREAD = 0.05
"""Value of the metric `feature_spread` below which a run has collapsed."""


@contextmanager
def open_metrics_log(out: Path, log_to: tuple[str, ...], config: dict[str, Any], start: int) -> Iterator[Log]:
    """Yields a function that writes metrics to metrics.jsonl and sends them to the loggers in `log_to`.

    `start` is the number of steps that the run has already taken.

    Raises:
        UserError: a logger's package is not installed.
    """
    with ExitStack() as stack:
        to_file = stack.enter_context(step_log(out / METRICS_FILE))
        others = []
        for name in log_to:
            module = importlib.import_module(f"{loggers.__name__}.{name}")
            try:
                others.append(stack.enter_context(module.open_logger(out, _identity(out, start), config, start)))
            except ModuleNotFoundError:
                raise missing_extra(name, name) from None

        def log(step: int, **metrics: float) -> None:
            to_file(step=step, **metrics)
            for other in others:
                other(step, metrics)

        yield log


def _identity(out: Path, start: int) -> str:
    """Returns the run's unique name: its folder's name and a random suffix. A resumed run keeps its name."""
    path = out / IDENTITY_FILE
    if not start or not path.is_file():
        path.write_text(f"{out.resolve().name}-{uuid.uuid4().hex[:8]}\n", encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()


@contextmanager
def step_log(path: Path) -> Iterator[Log]:
    """Yields a function that appends a JSON line to a file per call."""
    with path.open("a", encoding="utf-8") as file:

        def write(**values: Any) -> None:
            file.write(json.dumps(values) + "\n")
            file.flush()

        yield write


@contextmanager
def silence() -> Iterator[Log]:
    """Yields a function that writes nothing, where this rank has nothing to log."""
    yield lambda **values: None


def forget_after(step: int, out: Path) -> None:
    """Deletes the log lines of steps after `step`, which a resumed run takes again.

    This includes the logs of ranks that no longer exist.
    """
    for path in [out / METRICS_FILE, *out.glob("keys-*.jsonl")]:
        if path.exists():
            scratch = path.with_name(f".{path.name}.tmp")
            with path.open(encoding="utf-8") as old, scratch.open("w", encoding="utf-8") as new:
                new.writelines(line for line in old if line.endswith("}\n") and json.loads(line)["step"] <= step)
            scratch.replace(path)


class CollapseWarning:
    """Warns once if embeddings of all images become the same, or if no image has another to be like."""

    def __init__(self, is_main: bool) -> None:
        self.is_silent = not is_main

    def look(self, metrics: dict[str, float]) -> None:
        if metrics.get("positives") == 0 and not self.is_silent:
            self.is_silent = True
            warnings.warn(
                "no crop has a positive, so nothing is learned; take two crops of an image, or more images of a prompt",
                stacklevel=3,
            )
        spread = metrics.get("feature_spread", 1.0)
        if spread < MIN_SPREAD and not self.is_silent:
            self.is_silent = True
            warnings.warn(
                f"the embeddings of all images are nearly the same (feature_spread {spread:.3f}), so little is learned; "
                "lower the learning rate, or change the temperatures",
                stacklevel=3,
            )
