"""Reads what `fakeit-eval data` measured of a clone: `<name>.json`, and `<name>.parquet` with a row for each image."""

import json
from collections.abc import Iterator
from typing import Any

from builders.errors import UserError

MEASURES = "measures.json"
"""Name of the result inside a clone."""
FIELDS = {"task", "data", "settings", "numbers", "notes", "ranking", "command"}
"""Keys that the result must have."""


def parse_measures(content: bytes, where: str) -> dict[str, Any]:
    """Parses a result of `fakeit-eval data`.

    Args:
        where: The file, for the message.

    Raises:
        UserError: it is no such result.
    """
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("task") != "data" or not found.keys() >= FIELDS:
        raise UserError(f"'{where}' is no result of 'fakeit-eval data'; give --measures the .json that it writes")
    return found


def check_measured(found: dict[str, Any], digest: str, clone: str, where: str) -> None:
    """Checks that a result belongs to the clone as it is.

    Raises:
        UserError: it does not.
    """
    if found["data"]["digest"] != digest:
        raise UserError(
            f"'{where}' measures other images than those of '{clone}'; run 'fakeit-eval data {clone}' again"
        )


def without_paths(found: dict[str, Any]) -> dict[str, Any]:
    """A result without the paths of the machine that measured, which nobody else has."""
    kept = {name: value for name, value in found.items() if name not in ("run", "against")}
    return {**kept, "data": {name: value for name, value in found["data"].items() if name != "path"}}


def title(name: str) -> str:
    """The name of a measure for people."""
    return name.replace("_", " ")


def written(number: dict[str, Any]) -> tuple[str, str]:
    """Value and 95 % interval of a number, as texts with three digits; "" without an interval."""
    low, high = number.get("interval") or (None, None)
    return f"{number['value']:.3g}", "" if low is None else f"{low:.3g} to {high:.3g}"


def number_rows(found: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Yields the name, the value, the interval and the meaning of each measure."""
    for name, number in found["numbers"].items():
        yield title(name), *written(number), number.get("meaning", "")


def class_rows(found: dict[str, Any]) -> Iterator[tuple[str, int, list[str]]]:
    """Yields the class id, the number of images and the values of `class_measures` of each class, the worst first."""
    names, classes = class_measures(found), found.get("per_class", {})
    for key in found["ranking"]["classes"]:
        numbers = classes[key]["numbers"]
        yield key, classes[key]["num_images"], [f"{numbers[n]['value']:.3g}" if n in numbers else "" for n in names]


def class_measures(found: dict[str, Any]) -> list[str]:
    """The measures that some class has, in the order of the result's own."""
    classes = found.get("per_class", {}).values()
    return [name for name in found["numbers"] if any(name in measured["numbers"] for measured in classes)]


def about(found: dict[str, Any]) -> str:
    """One sentence on what the numbers depend on."""
    settings, data = found["settings"], found["data"]
    real, classifier = settings["real"], settings["classifier"]
    compared = (
        f", {found['num_compared']:,} of them compared with as many of {real['name']}"
        if "num_compared" in found
        else ""
    )
    recognized = f"; recognizability by {classifier['name']}" if classifier else ""
    features = f"features of {settings['backbone']['name']} at {settings['backbone']['input_size']} pixels"
    crops = data["preprocessing"].rpartition(", ")[0]  # without its version
    return f"{data['num_samples']:,} images{compared}, {features}, cropped by {crops}{recognized}"
