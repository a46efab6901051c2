"""Results as Markdown: a table of scores, and one of the measures of features."""

from typing import Any

from fakeit_eval.analysis.analyse import MEASURES

HEADER = ("run", "trained on", "task", "data", "images", "top-1", "top-5")
FEATURES_HEADER = ("run", "trained on", "data", "images", "reading", *(name.replace("_", " ") for name in MEASURES))


def render_tables(results: list[dict[str, Any]]) -> str:
    """A table for each kind of results that there are."""
    scores = [_score_row(result) for result in results if "measures" not in result]
    features = [_features_row(result) for result in results if "measures" in result]
    tables = [render_table(header, rows) for header, rows in ((HEADER, scores), (FEATURES_HEADER, features)) if rows]
    return "\n\n".join(tables)


def render_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Rows under a header, columns aligned."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in [header, *rows]
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _score_row(result: dict[str, Any]) -> tuple[str, ...]:
    """Percentages with one digit."""
    top5 = f"{result['top5']:.1f}" if "top5" in result else ""
    run, trained_on, data, images = _described(result)
    return run, trained_on, result["task"], data, images, f"{result['value']:.1f}", top5


def _features_row(result: dict[str, Any]) -> tuple[str, ...]:
    return *_described(result), result["settings"]["reading"], *(f"{result['measures'][name]:.4g}" for name in MEASURES)


def _described(result: dict[str, Any]) -> tuple[str, str, str, str]:
    data = result["data"]
    return result["run"], result["trained_on"], data["name"], f"{data['num_samples']:,}"
