"""Results as files: `RUN/results/<name>.json`, each with its value, unit, data, settings and versions."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from builders.format.backbone import WEIGHTS, Backbone
from builders.format.errors import UserError
from builders.format.open_clone import Clone

PACKAGES = ("fakeit", "torch", "numpy", "pillow", "scikit-learn", "optuna")


def describe_data(clone: Clone) -> dict[str, Any]:
    """What was evaluated on, by name and content."""
    manifest = clone.manifest
    return {
        "name": manifest.recipe["name"],
        "path": clone.root,
        "digest": manifest.digest,
        "num_samples": manifest.num_samples,
        "num_classes": len(manifest.label_names),
    }


def result_name(task: str, data: dict[str, Any], settings: dict[str, Any]) -> str:
    """A file name that tells a task, its data and its settings apart from others."""
    digest = hashlib.sha256(json.dumps([data["digest"], settings], sort_keys=True).encode()).hexdigest()
    return f"{task}-{data['name'].replace('/', '-')}-{digest[:8]}"


def write_result(
    run: Path,
    *,
    backbone: Backbone,
    task: str,
    value: float,
    unit: str,
    data: dict[str, Any],
    settings: dict[str, Any],
    **more: Any,
) -> Path:
    """Writes one result whole; returns its path."""
    content = {
        "task": task,
        "value": round(value, 4),
        "unit": unit,
        "run": str(run),
        "trained_on": backbone.trained_on,
        "weights_sha256": hashlib.sha256((run / WEIGHTS).read_bytes()).hexdigest(),
        "data": data,
        "settings": settings,
        **more,
        "versions": {package: version(package) for package in PACKAGES},
    }
    path = run / "results" / f"{result_name(task, data, settings)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.tmp")
    scratch.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    scratch.replace(path)
    return path


def find_results(runs: list[Path]) -> list[Path]:
    """The result files of some runs, run by run, sorted by name.

    Raises:
        UserError: no run is given, or one has no results.
    """
    if not runs:
        raise UserError("no run to report; give at least one run directory of fakeit-train")
    paths = []
    for run in runs:
        found = sorted((run / "results").glob("*.json"))
        if not found:
            raise UserError(f"no results in '{run}'; make some with 'fakeit-eval test {run} --data CLONE'")
        paths += found
    return paths


def read_result(path: Path) -> dict[str, Any]:
    """One result; `run` is where it lies now.

    Raises:
        UserError: the file is no result.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(result["data"]["num_samples"], int) or not isinstance(result["value"], int | float):
            raise TypeError("its fields are not of their types")
        names = {name: str(result[name]) for name in ("task", "trained_on")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{path}' is no result ({error}); remove it and evaluate again") from None
    return {**result, **names, "run": str(path.parent.parent)}
