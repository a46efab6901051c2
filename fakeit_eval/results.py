"""Results as files: `<out>/results/<name>.json`, each with its value, unit, data, settings and versions.

A result is what its name's digest, the data's and the weights' say; evaluating the same again reads the file.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from builders.format.errors import UserError
from fakeit_eval.pictures.base import PictureSet

PACKAGES = ("fakeit", "torch", "torchvision", "timm", "numpy", "pillow", "scikit-learn", "scipy", "optuna")


class Evaluated(Protocol):
    """What results are of: a backbone, or a file of features."""

    @property
    def name(self) -> str: ...
    @property
    def trained_on(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def out(self) -> Path: ...


def as_file_name(name: str) -> str:
    """Of anything that was named."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")


def describe_data(name: str, parts: Sequence[PictureSet], difference: str = "") -> dict[str, Any]:
    """What was evaluated on, by name and content."""
    digests = [part.digest for part in parts]
    return {
        "name": name,
        "path": parts[0].place,
        "digest": digests[0]
        if len(parts) == 1
        else "sha256:" + hashlib.sha256("\n".join(digests).encode()).hexdigest(),
        "num_samples": sum(len(part) for part in parts),
        "num_classes": len(parts[0].class_names),
        **({"difference": difference} if difference else {}),
    }


def result_path(subject: Evaluated, task: str, data: dict[str, Any], settings: dict[str, Any]) -> Path:
    """A file name that tells a task, its data and its settings apart from others."""
    digest = hashlib.sha256(json.dumps([data["digest"], settings], sort_keys=True).encode()).hexdigest()
    return subject.out / "results" / f"{task}-{as_file_name(data['name'])}-{digest[:8]}.json"


def is_known(subject: Evaluated, path: Path) -> bool:
    """Whether a result is there, and of these weights."""
    try:
        return path.is_file() and read_result(path)["weights_sha256"] == subject.sha256
    except (UserError, KeyError):
        return False


def write_result(
    subject: Evaluated,
    path: Path,
    *,
    task: str,
    value: float,
    unit: str,
    data: dict[str, Any],
    settings: dict[str, Any],
    **more: Any,
) -> None:
    """Writes one result whole."""
    content = {
        "task": task,
        "value": round(value, 4),
        "unit": unit,
        "run": subject.name,
        "trained_on": subject.trained_on,
        "weights_sha256": subject.sha256,
        "data": data,
        "settings": settings,
        **more,
        "versions": {package: version(package) for package in PACKAGES},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.tmp")
    scratch.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    scratch.replace(path)


def find_results(runs: Sequence[Path]) -> list[Path]:
    """The result files of some runs, or of folders that hold results, run by run, sorted by name.

    Raises:
        UserError: no run is given, or one has no results.
    """
    if not runs:
        raise UserError("no run to report; give at least one run directory of fakeit-train, or a folder of evaluations")
    paths = []
    for run in runs:
        found = [run] if run.suffix == ".json" and run.is_file() else sorted((run / "results").glob("*.json"))
        if not found:
            raise UserError(f"no results in '{run}'; make some with 'fakeit-eval test {run} --data CLONE'")
        paths += found
    return paths


def read_result(path: Path) -> dict[str, Any]:
    """One result; of a run's, `run` is where it lies now.

    Raises:
        UserError: the file is no result.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(result["data"]["num_samples"], int) or not isinstance(result["value"], int | float):
            raise TypeError("its fields are not of their types")
        names = {name: str(result[name]) for name in ("task", "trained_on", "run")}
        names["data_name"] = str(result["data"]["name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{path}' is no result ({error}); remove it and evaluate again") from None
    out = path.parent.parent
    is_run = (out / "backbone.json").is_file()
    return {**result, **names, "run": str(out) if is_run else names["run"]}
