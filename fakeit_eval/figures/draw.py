"""Figures at the width of a paper's column, in colours that stay apart in grey and for the colour-blind (Okabe and Ito)."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.figure import Figure

from fakeit_eval.analyze import SHOWN
from fakeit_eval.figures.table import Cell, Table
from fakeit_eval.reporting.averages import family
from fakeit_eval.studies.base import Base
from fakeit_eval.test_sets.base import DOMAINS

COLUMN = 3.4
"""Inches."""
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
TEXT = 8
"""Points."""
MEASURE_DOMAINS = {**DOMAINS, "transfer": "transfer"}
OTHER_DOMAINS = {"near": "near test sets", "far": "far test sets", "transfer": "transfer"}
"""As bases without ImageNet's test sets have them."""


def draw_curves(
    table: Table, base: Base, x_label: str, curves: Sequence[tuple[str, str]], *, is_log: bool = False
) -> Figure:
    """One panel for each (label, metric), a curve for each series; bars are the standard deviation over seeds."""
    figure, panels = _panels(len(curves), height=2.0)
    for panel, (label, metric) in zip(panels, curves, strict=True):
        for number, series in enumerate(table.series):
            found = table.curve(series, metric)
            panel.errorbar(
                [float(x) for x, _ in found],
                [cell.mean for _, cell in found],
                [cell.spread for _, cell in found],
                color=COLORS[number % len(COLORS)],
                marker=MARKERS[number % len(MARKERS)],
                markersize=3.5,
                linewidth=1.2,
                capsize=2,
                label=series,
            )
        if is_log:
            panel.set_xscale("log")
            panel.set_xticks([0.1, 1, 10, 50], ["0.1", "1", "10", "50"])
            panel.minorticks_off()
        panel.set_xlabel(x_label, fontsize=TEXT)
        panel.set_ylabel(
            f"{_readable(metric)}, top-1 in %" if label == "top-1" else "mean transfer, top-1 in %", fontsize=TEXT
        )
    if len(table.series) > 1:
        panels[0].legend(fontsize=TEXT - 1, frameon=False)
    return figure


def draw_bars(table: Table, x_label: str, panel_metrics: Sequence[tuple[str, str]]) -> Figure:
    """One panel for each (label, metric), a group of bars for each x, a bar for each series."""
    figure, panels = _panels(len(panel_metrics), height=2.4)
    xs, series = list(dict.fromkeys(x for _, x in table.points)), table.series
    for panel, (label, metric) in zip(panels, panel_metrics, strict=True):
        cells = {name: [table.cell(name, x, metric) for x in xs] for name in series}
        for bars in _clustered_bars(panel, series, cells.__getitem__):
            panel.bar_label(bars, fmt="%.1f", fontsize=TEXT - 2, padding=2)
        panel.set_ylim(0, min(108.0, panel.get_ylim()[1] + 6))
        turned = len(xs) > 3
        panel.set_xticks(
            range(len(xs)), [str(x) for x in xs], rotation=30 if turned else 0, ha="right" if turned else "center"
        )
        panel.set_xlabel(x_label, fontsize=TEXT)
        panel.set_ylabel(
            f"{_readable(metric)}, top-1 in %" if label == "top-1" else "mean transfer, top-1 in %", fontsize=TEXT
        )
    if len(series) > 1:
        panels[0].legend(
            fontsize=TEXT - 1, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(series)
        )
    return figure


def draw_measures(table: Table, base: Base) -> Figure:
    """Four panels, a group of bars for each group of data sets, a bar for each network."""
    figure = Figure(figsize=(2 * COLUMN, 3.6), layout="constrained", dpi=200)
    panels: Any = figure.subplots(2, 2).ravel()
    titles = MEASURE_DOMAINS if base.name.startswith("imagenet") else OTHER_DOMAINS
    for panel, measure in zip(panels, SHOWN, strict=True):
        metrics = [f"{measure}, {domain}" for domain in MEASURE_DOMAINS]
        _clustered_bars(panel, table.series, lambda name, metrics=metrics: [table.cell(name, "", m) for m in metrics])  # type: ignore[misc]
        _style(panel)
        panel.set_xticks(range(len(MEASURE_DOMAINS)), list(titles.values()))
        panel.set_title(measure.replace("_", " "), fontsize=TEXT)
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        fontsize=TEXT,
        frameon=False,
        loc="outside upper center",
        ncols=len(table.series),
    )
    return figure


def draw_spiders(table: Table, base: Base) -> Figure:
    """Top-1 and top-5 over the test sets, v2's variants as one, and top-1 over the transfer tasks or their groups."""
    sets = [metric for metric in table.metrics if f"{metric}, top-5" in table.metrics and family(metric) == metric]
    domains = [m for m in table.metrics if m.startswith("transfer, ") and m != "transfer, mean"]
    transfer = domains if len(domains) > 2 else [m for m in table.metrics if m.startswith("probe: ")]
    webs = [
        ("top-1", sets),
        ("top-5", [f"{name}, top-5" for name in sets]),
        ("transfer, top-1", transfer),
    ]
    figure = Figure(figsize=(2 * COLUMN, 2.9), layout="constrained", dpi=200)
    panels: Any = figure.subplots(1, len(webs), subplot_kw={"projection": "polar"})
    for panel, (title, metrics) in zip(panels, webs, strict=True):
        angles = [2 * math.pi * number / len(metrics) for number in range(len(metrics))]
        for number, series in enumerate(table.series):
            cells = [table.cell(series, "", metric) for metric in metrics]
            values = [cell.mean if cell else math.nan for cell in cells]
            color = COLORS[number % len(COLORS)]
            panel.plot([*angles, angles[0]], [*values, values[0]], color=color, linewidth=1.3, label=series)
            panel.fill([*angles, angles[0]], [*values, values[0]], color=color, alpha=0.12)
        panel.set_xticks(angles, [_readable(metric).replace(" ", "\n") for metric in metrics], fontsize=TEXT - 1)
        panel.set_ylim(0, 100)
        panel.set_yticks([25, 50, 75, 100], ["25", "50", "75", ""], fontsize=TEXT - 2)
        panel.tick_params(axis="x", pad=2)
        panel.set_title(title, fontsize=TEXT, pad=14)
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        fontsize=TEXT,
        frameon=False,
        loc="outside lower center",
        ncols=len(table.series),
    )
    return figure


def _clustered_bars(panel: Any, series: Sequence[str], cells_of: Callable[[str], list[Cell | None]]) -> list[Any]:
    """A bar for each series in every group; the bars of each series."""
    width, drawn = 0.8 / len(series), []
    for number, name in enumerate(series):
        cells = cells_of(name)
        drawn.append(
            panel.bar(
                [column + (number - (len(series) - 1) / 2) * width for column in range(len(cells))],
                [cell.mean if cell else math.nan for cell in cells],
                width * 0.92,
                yerr=[cell.spread if cell else math.nan for cell in cells],
                color=COLORS[number % len(COLORS)],
                error_kw={"linewidth": 0.8, "capsize": 2},
                label=name,
            )
        )
    return drawn


def _panels(count: int, height: float) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(COLUMN * (2 if count > 1 else 1), height), layout="constrained", dpi=200)
    panels: Any = figure.subplots(1, count, squeeze=False)[0]
    for panel in panels:
        _style(panel)
    return figure, list(panels)


def _style(panel: Any) -> None:
    panel.tick_params(labelsize=TEXT - 1)
    panel.grid(axis="y", linewidth=0.4, alpha=0.5)
    panel.set_axisbelow(True)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)


def _readable(metric: str) -> str:
    for beginning in ("digits_", "imagenet_", "probe: ", "transfer, "):
        metric = metric.removeprefix(beginning)
    return metric.removesuffix(", top-5").replace("_", " ")
