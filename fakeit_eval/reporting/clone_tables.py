"""Tables of what clones are worth: a row for each clone, the worst classes of one, and the difference of two."""

from typing import Any

from fakeit_eval.dataset_measures.measure_all import MEANINGS
from fakeit_eval.reporting.table import Row, Table, without_empty_columns

NUM_WORST = 10
"""Classes that a table of classes shows."""


def clone_tables(results: list[dict[str, Any]]) -> list[Table]:
    """Tables of results of `fakeit-eval data`."""
    tables = [_measures_table(results)]
    tables += [_differences_table(result) for result in results if "differences" in result]
    tables += [_classes_table(result) for result in results if result.get("per_class")]
    return tables


def _measures_table(results: list[dict[str, Any]]) -> Table:
    names = [name for name in MEANINGS if any(name in result["numbers"] for result in results)]
    rows: list[Row] = []
    for result in results:
        settings = result["settings"]
        rows.append((
            result["run"],
            (settings["real"] or {}).get("name", ""),
            settings["backbone"]["name"],
            (settings["classifier"] or {}).get("name", ""),
            f"{result['data']['num_samples']:,}",
            *(_number(result["numbers"].get(name)) for name in names),
            "; ".join([*result["notes"], *(f"no {_title(name)}: {why}" for name, why in result.get("missing", {}).items())]),
        ))  # fmt: skip
    header = ("clone", "real images", "backbone", "classifier", "images", *map(_title, names), "note")
    return without_empty_columns(Table("Clones", header, rows))


def _differences_table(result: dict[str, Any]) -> Table:
    other = result["against"]
    rows: list[Row] = [(_title(name), _number(found)) for name, found in result["differences"].items()]
    title = f"{result['run']} minus {other}, on {result['num_pairs']:,} pairs of images"
    return Table(title, ("measure", title), rows)


def _classes_table(result: dict[str, Any]) -> Table:
    ranked_by, classes = result["ranking"]["measure"], result["per_class"]
    shown = result["ranking"]["classes"][:NUM_WORST] or list(classes)[:NUM_WORST]
    names = [name for name in MEANINGS if any(name in classes[key]["numbers"] for key in shown)]
    rows: list[Row] = [
        (key, f"{classes[key]['num_images']:,}", *(_number(classes[key]["numbers"].get(name)) for name in names))
        for key in shown
    ]
    order = f", lowest {_title(ranked_by)} first" if ranked_by else ""
    title = f"{len(shown)} of {len(classes)} classes of {result['run']}{order}"
    return Table(title, ("class", "images", *map(_title, names)), rows)


def _number(found: dict[str, Any] | None) -> str:
    if not found:
        return ""
    low, high = found.get("interval") or (None, None)
    return f"{found['value']:.3g}" + (f" ({low:.3g}–{high:.3g})" if low is not None else "")


def _title(name: str) -> str:
    return name.replace("_", " ")
