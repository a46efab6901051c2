"""Writes the results of a study: a table as CSV and JSON, a figure as PNG and SVG, and a Markdown page with both."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fakeit_eval.figures.draw import figure_style
from fakeit_eval.figures.table import CLONE, Cell, Row, Table
from fakeit_eval.reporting.report import paper_rows
from fakeit_eval.reporting.table import Table as Lines
from fakeit_eval.reporting.table import render_markdown
from fakeit_eval.studies.base import Base

DOMAINS = ("near", "far", "transfer")
"""Domains of the measures; a measure's metric ends in one of them."""


def write_study(name: str, module: Any, base: Base, table: Table, out: Path) -> Path:
    """Writes OUT/<study>-<base>.csv, .json, .png, .svg and .md, and returns the path of the last, the page.

    Args:
        name: Name of the study.
        module: The study's module in fakeit_eval/studies.
    """
    stem = out / f"{name}-{base.name}"
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Row.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table.as_dicts())
    stem.with_suffix(".csv").write_text(text.getvalue(), encoding="utf-8")
    content = {"study": name, "base": base.name, "rows": table.as_dicts()}
    stem.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    with figure_style():
        figure = module.draw(table, base)
        for suffix in (".png", ".svg"):
            figure.savefig(stem.with_suffix(suffix), metadata={"Date": None} if suffix == ".svg" else None)
    page = stem.with_suffix(".md")
    page.write_text("\n".join(_page(name, module, base, table, stem.name)) + "\n", encoding="utf-8")
    return page


def _page(name: str, module: Any, base: Base, table: Table, stem: str) -> Iterator[str]:
    num_seeds = len({row.seed for row in table.rows})
    yield f"# {module.TITLE}"
    yield ""
    yield f"`fakeit-eval study {name} --base {base.name}`. {(module.__doc__ or '').strip()}"
    yield ""
    yield f"Mean and standard deviation over {num_seeds} training seeds on one clone for each value; accuracies in percent."
    yield ""
    yield f"![{module.TITLE}]({stem}.png)"
    yield ""
    metrics = _shown(table, base)
    rows = [
        (_label(table, series, x), *(_written(table.cell(series, x, metric), metric) for metric in metrics))
        for series, x in table.points
    ]
    yield render_markdown(Lines(module.TITLE, (module.X_LABEL or "network", *metrics), rows))
    if hasattr(module, "conclude"):
        yield ""
        yield module.conclude(table, base)
    theirs = [] if base.name == "digits" else paper_rows("test", base.main_set, base.num_classes)
    if theirs:
        yield ""
        found = "; ".join(f"{row['trained_on']} {row['top1']} ({row['source']})" for row in theirs)
        yield f"The paper's, top-1 on {base.main_set}: {found}."


def _label(table: Table, series: str, x: float | str) -> str:
    value = f"{x:g}" if isinstance(x, float) else x
    return ", ".join(split for split in (value, series if len(table.series) > 1 else "") if split)


def _shown(table: Table, base: Base) -> list[str]:
    """The page's metrics: the main ones, then test sets, tasks and measures; only the CSV has the others."""
    first = [metric for metric in (base.main_set, "transfer, mean") if metric in table.metrics]
    others = [m for m in table.metrics if m not in first and not m.startswith("transfer, ") and ", top-5" not in m]
    return [*first, *others]


def _written(cell: Cell | None, metric: str) -> str:
    if cell is None:
        return ""
    if metric.startswith(CLONE):
        return f"{cell.mean:.3f}"  # all seeds share the clone
    digits = 3 if metric.rpartition(", ")[2] in DOMAINS else 1
    spread = f" ± {cell.spread:.{digits}f}" if cell.num_seeds > 1 else ""
    return f"{cell.mean:.{digits}f}{spread}"
