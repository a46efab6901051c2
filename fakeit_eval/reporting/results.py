"""Writes and reads result files, `<out>/results/<name>.json`, each with its value, unit, data, settings and versions.

The file's name holds a digest of data and settings, and the file the digest of the weights. If they are the same, an
evaluation reads the file and computes nothing."""

import hashlib
import json
import re
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from builders.errors import UserError
from builders.image_sets.base import ImageSet, Labels
from builders.images.center_crop import PREPROCESSING
from builders.versions import versions
from fakeit_eval.analyze import MEASURES

if TYPE_CHECKING:
    import pyarrow as pa

NUMBERS = ("top5", "mean_per_class", "top1_spread")
PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "scikit-learn", "scipy", "optuna")


class Evaluated(Protocol):
    """What a result belongs to: a model, or a file of features."""

    @property
    def name(self) -> str: ...
    @property
    def trained_on(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def out(self) -> Path: ...


def as_file_name(name: str) -> str:
    """Turns any name into a file name of at most 100 characters."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")[-100:]


def describe_data(name: str, splits: Sequence[ImageSet], difference: str = "") -> dict[str, Any]:
    """Describes the images of an evaluation by name and content.

    `digest` identifies the images; `state` changes with their files, the read policy and the preprocessing.
    """
    digests = [split.digest for split in splits]
    policies = sorted({split.policy for split in splits})
    states = [PREPROCESSING, *policies, *(split.state for split in splits)]
    return {
        "name": name,
        "path": splits[0].location,
        "digest": digests[0]
        if len(splits) == 1
        else "sha256:" + hashlib.sha256("\n".join(digests).encode()).hexdigest(),
        "state": hashlib.sha256("\n".join(states).encode()).hexdigest()[:16],
        "num_samples": sum(len(split) for split in splits),
        "num_classes": len(splits[0].class_names),
        "read": " and ".join(policies),
        "preprocessing": PREPROCESSING,
        **({"difference": difference} if difference else {}),
    }


def describe_features(source: Evaluated, labels: Labels) -> dict[str, Any]:
    """Describes the data of an evaluation of features from a file."""
    return {
        "name": source.name,
        "path": source.name,
        "digest": source.sha256,
        "num_samples": len(labels),
        "num_classes": len(np.unique(labels)),
    }


def result_path(model: Evaluated, task: str, data: dict[str, Any], settings: dict[str, Any]) -> Path:
    """Path of the result file of a task on some data with some settings."""
    digest = hashlib.sha256(
        json.dumps([data["digest"], data.get("read", ""), settings], sort_keys=True).encode()
    ).hexdigest()
    return model.out / "results" / f"{task}-{as_file_name(data['name'])}-{digest[:8]}.json"


def is_known(model: Evaluated, path: Path, data: dict[str, Any]) -> bool:
    """Whether a result exists for these weights, and for the images as they are now.

    Raises:
        UserError: the file belongs to another model.
    """
    try:
        found = read_result(path) if path.is_file() else {}
    except UserError:
        return False
    if not found:
        return False
    if found["weights_sha256"] != model.sha256 and not (found["is_run"] or found["written_for"] == model.name):
        raise UserError(
            f"'{model.out}' holds results of '{found['written_for']}'; give '{model.name}' another folder with --out"
        )
    has_images = "images" not in found or path.with_suffix(".parquet").is_file()
    is_same = found["weights_sha256"] == model.sha256 and found["data"].get("state") == data.get("state")
    return bool(is_same and has_images)


def write_result(
    model: Evaluated,
    path: Path,
    *,
    task: str,
    value: float,
    unit: str,
    data: dict[str, Any],
    settings: dict[str, Any],
    images: "pa.Table | None" = None,
    drawing: bytes | None = None,
    **more: Any,
) -> None:
    """Writes a result file; a killed process leaves no partial file under its name.

    Args:
        images: A row for each image, written beside the result with the suffix .parquet.
        drawing: A PNG file, written beside the result with the suffix .png.
    """
    content = {
        "task": task,
        "value": round(value, 4),
        "unit": unit,
        "run": model.name,
        "trained_on": model.trained_on,
        "weights_sha256": model.sha256,
        "data": data,
        "settings": settings,
        **more,
        **({"images": path.with_suffix(".parquet").name} if images is not None else {}),
        **({"drawing": path.with_suffix(".png").name} if drawing is not None else {}),
        "versions": versions(*PACKAGES),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    if images is not None:
        import pyarrow.parquet as pq

        scratch = path.with_name(f".{uuid.uuid4().hex}.tmp")
        pq.write_table(images, scratch)
        scratch.replace(path.with_suffix(".parquet"))
    if drawing is not None:
        path.with_suffix(".png").write_bytes(drawing)
    scratch = path.with_name(f".{uuid.uuid4().hex}.tmp")
    scratch.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    scratch.replace(path)


def find_results(runs: Sequence[Path]) -> list[Path]:
    """Lists the result files of runs, or of folders of evaluations, run by run and sorted by name.

    A result file among `runs` stands for itself.

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
    """Reads a result file. If it lies in a run directory, `run` is that directory's current path.

    Raises:
        UserError: the file is not a result.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        names = {name: str(result[name]) for name in ("task", "trained_on", "run", "weights_sha256")}
        _check(result)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"'{path}' is not a result ({error}); remove it and evaluate again") from None
    out = path.parent.parent
    is_run = (out / "backbone.json").is_file()
    return {
        **result,
        **names,
        "is_run": is_run,
        "written_for": names["run"],
        "run": str(out) if is_run else names["run"],
    }


def _check(result: dict[str, Any]) -> None:
    """Checks that a result has the fields that a report needs.

    Raises:
        TypeError, KeyError, AttributeError: it does not.
    """
    data, settings = result["data"], result["settings"]
    counts = [data["num_samples"], data["num_classes"], *result.get("num_images", {"test": 0}).values()]
    numbers = [
        result["value"],
        *(result[name] for name in NUMBERS if name in result),
        *result.get("interval", [0.0, 0.0]),
    ]
    numbers += [result["measures"][name] for name in MEASURES] if "measures" in result else []
    if result["task"] == "data":
        numbers += [number for found in _all_numbers(result) for number in (found["value"], *found.get("interval", []))]
    texts = [data["name"], settings.get("probe", ""), settings.get("group", ""), settings.get("reading", "")]
    if not (
        all(type(count) is int for count in counts)
        and all(type(number) in (int, float) for number in numbers)
        and all(isinstance(text, str) for text in texts)
        and len(result.get("interval", [0.0, 0.0])) == 2
        and isinstance(settings.get("seeds", []), list)
        and ("measures" not in result or "reading" in settings)
    ):
        raise TypeError("a field has a wrong type")


def _all_numbers(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Every number of a clone's result, with its interval."""
    classes = [found["numbers"] for found in result.get("per_class", {}).values()]
    return [found for numbers in (result["numbers"], *classes) for found in numbers.values()]
