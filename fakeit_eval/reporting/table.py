"""A table of texts, and its formats: terminal, markdown, csv, latex."""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass

Row = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    title: str
    header: Row
    rows: list[Row]


def without_empty_columns(table: Table) -> Table:
    """Leaves out the columns that no row fills."""
    kept = [number for number in range(len(table.header)) if any(row[number] for row in table.rows)]
    pick = [tuple(row[number] for number in kept) for row in [table.header, *table.rows]]
    return Table(table.title, pick[0], pick[1:])


def _aligned(table: Table) -> list[list[str]]:
    lines = [table.header, *table.rows]
    widths = [max(len(row[column]) for row in lines) for column in range(len(table.header))]
    return [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in lines]


def render_markdown(table: Table) -> str:
    """Renders a Markdown table; its columns are aligned, so that the source is readable, too."""
    escaped = Table(table.title, table.header, [tuple(cell.replace("|", "\\|") for cell in row) for row in table.rows])
    head, *rows = ["| " + " | ".join(cells) + " |" for cells in _aligned(escaped)]
    rule = "|" + "|".join("-" * (len(cell) + 2) for cell in _aligned(escaped)[0]) + "|"
    return "\n".join([head, rule, *rows])


def render_terminal(table: Table) -> str:
    head, *rows = ["  ".join(cells).rstrip() for cells in _aligned(table)]
    return "\n".join([table.title, "", head, "─" * max(map(len, [head, *rows])), *rows])


def render_csv(table: Table) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([table.header, *table.rows])
    return out.getvalue().rstrip("\n")


SPECIAL = str.maketrans(
    {**{c: f"\\{c}" for c in "&%$#_{}"}, "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
     "±": r"$\pm$", "–": "--"}
)  # fmt: skip


def render_latex(table: Table) -> str:
    """Renders a LaTeX tabular; it needs the booktabs package."""
    lines = [" & ".join(cell.translate(SPECIAL) for cell in row) + r" \\" for row in [table.header, *table.rows]]
    return "\n".join([
        f"% {table.title}",
        rf"\begin{{tabular}}{{{'l' * len(table.header)}}}",
        r"\toprule",
        lines[0],
        r"\midrule",
        *lines[1:],
        r"\bottomrule",
        r"\end{tabular}",
    ])  # fmt: skip


FORMATS: dict[str, Callable[[Table], str]] = {
    "markdown": render_markdown,
    "terminal": render_terminal,
    "csv": render_csv,
    "latex": render_latex,
}
