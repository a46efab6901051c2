"""One Markdown table for any number of results."""

from typing import Any

HEADER = ("run", "trained on", "task", "data", "images", "top-1", "top-5")


def render_table(results: list[dict[str, Any]]) -> str:
    """A row per result, columns aligned; percentages with one digit."""
    rows = [HEADER, *(_row(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _row(result: dict[str, Any]) -> tuple[str, ...]:
    top5 = f"{result['top5']:.1f}" if "top5" in result else ""
    data = result["data"]
    return (
        result["run"],
        result["trained_on"],
        result["task"],
        data["name"],
        f"{data['num_samples']:,}",
        f"{result['value']:.1f}",
        top5,
    )
