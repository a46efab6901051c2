"""Draws the studies' figures at the width of a paper's column; `style.mplstyle` has their fonts, colors and lines.

Both drawing and saving belong inside of `figure_style()`, because matplotlib creates some artists only when it saves.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib.style
from matplotlib import rcParams
from matplotlib.figure import Figure

from fakeit_eval.analyze import SHOWN
from fakeit_eval.figures.table import Cell, Table
from fakeit_eval.reporting.averages import family
from fakeit_eval.reporting.correlation import Correlation
from fakeit_eval.studies.base import Base
from fakeit_eval.test_sets.base import DOMAINS

COLUMN = 3.4
"""Width of a paper's column, in inches."""
MEASURE_DOMAINS = {**DOMAINS, "transfer": "transfer"}
"""Domains of the measures, and their labels for bases with ImageNet's test sets."""
OTHER_DOMAINS = {"near": "near test sets", "far": "far test sets", "transfer": "transfer"}
"""The labels for other bases."""


def figure_style() -> AbstractContextManager[None]:
    """Applies the style sheet to figures that are drawn and saved in this context; global settings stay the same."""
    style: AbstractContextManager[None] = matplotlib.style.context("fakeit_eval.figures.style")
    return style


def draw_curves(
    table: Table, base: Base, x_label: str, curves: Sequence[tuple[str, str]], *, is_log: bool = False
) -> Figure:
    """Draws a panel for each (label, metric), a curve for each series; error bars are the spread over seeds."""
    figure, panels = _panels(len(curves), height=2.0)
    for panel, (label, metric) in zip(panels, curves, strict=True):
        for series in table.series:
            found = table.curve(series, metric)
            panel.errorbar(
                [float(x) for x, _ in found],
                [cell.mean for _, cell in found],
                [cell.spread for _, cell in found],
                label=series,
            )
        if is_log:
            panel.set_xscale("log")
            panel.set_xticks([0.1, 1, 10, 50], ["0.1", "1", "10", "50"])
            panel.minorticks_off()
        panel.set_xlabel(x_label)
        panel.set_ylabel(_y_label(label, metric))
    if len(table.series) > 1:
        panels[0].legend()
    return figure


def draw_bars(table: Table, x_label: str, panel_metrics: Sequence[tuple[str, str]]) -> Figure:
    """Draws a panel for each (label, metric) with a cluster of bars for each x, and a bar for each series in it."""
    figure, panels = _panels(len(panel_metrics), height=2.4)
    xs, series = list(dict.fromkeys(x for _, x in table.points)), table.series
    for panel, (label, metric) in zip(panels, panel_metrics, strict=True):
        cells = {name: [table.cell(name, x, metric) for x in xs] for name in series}
        for bars in _clustered_bars(panel, series, cells.__getitem__):
            panel.bar_label(bars, fmt="%.1f", padding=2)
        panel.set_ylim(0, min(108.0, panel.get_ylim()[1] + 6))
        turned = len(xs) > 3
        panel.set_xticks(
            range(len(xs)), [str(x) for x in xs], rotation=30 if turned else 0, ha="right" if turned else "center"
        )
        panel.set_xlabel(x_label)
        panel.set_ylabel(_y_label(label, metric))
    if len(series) > 1:
        panels[0].legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(series))
    return figure


def draw_measures(table: Table, base: Base) -> Figure:
    """Draws a panel for each of the four measures, a cluster of bars for each domain, a bar for each series."""
    figure = Figure(figsize=(2 * COLUMN, 3.6), layout="constrained")
    panels: Any = figure.subplots(2, 2).ravel()
    titles = MEASURE_DOMAINS if base.name.startswith("imagenet") else OTHER_DOMAINS
    for panel, measure in zip(panels, SHOWN, strict=True):
        metrics = [f"{measure}, {domain}" for domain in MEASURE_DOMAINS]
        _clustered_bars(panel, table.series, lambda name, metrics=metrics: [table.cell(name, "", m) for m in metrics])  # type: ignore[misc]
        panel.set_xticks(range(len(MEASURE_DOMAINS)), list(titles.values()))
        panel.set_title(measure.replace("_", " "))
    _legend(figure, panels[0], "outside upper center")
    return figure


def draw_spiders(table: Table, base: Base) -> Figure:
    """Draws three spider plots: top-1 and top-5 on the test sets, and top-1 on transfer tasks; a curve for each series.

    The variants of v2 are one axis. Families of tasks are the axes of transfer if there are more than two, else single
    tasks."""
    sets = [metric for metric in table.metrics if f"{metric}, top-5" in table.metrics and family(metric) == metric]
    domains = [m for m in table.metrics if m.startswith("transfer, ") and m != "transfer, mean"]
    transfer = domains if len(domains) > 2 else [m for m in table.metrics if m.startswith("probe: ")]
    webs = [
        ("top-1", sets),
        ("top-5", [f"{name}, top-5" for name in sets]),
        ("transfer, top-1", transfer),
    ]
    figure = Figure(figsize=(2 * COLUMN, 2.9), layout="constrained")
    panels: Any = figure.subplots(1, len(webs), subplot_kw={"projection": "polar"})
    for panel, (title, metrics) in zip(panels, webs, strict=True):
        angles = [2 * math.pi * number / len(metrics) for number in range(len(metrics))]
        for series in table.series:
            cells = [table.cell(series, "", metric) for metric in metrics]
            values = [cell.mean if cell else math.nan for cell in cells]
            (line,) = panel.plot([*angles, angles[0]], [*values, values[0]], marker="", label=series)
            panel.fill([*angles, angles[0]], [*values, values[0]], color=line.get_color(), alpha=0.12)
        panel.set_xticks(angles, [_readable(metric).replace(" ", "\n") for metric in metrics])
        panel.set_ylim(0, 100)
        panel.set_yticks([25, 50, 75, 100], ["25", "50", "75", ""], fontsize=rcParams["font.size"])
        panel.grid(axis="both", linewidth=rcParams["axes.linewidth"], alpha=1)
        panel.tick_params(axis="x", pad=2)
        panel.set_title(title, pad=14)
    _legend(figure, panels[0], "outside lower center")
    return figure


def draw_prediction(
    table: Table, metric: str, accuracies: Sequence[float], correlations: dict[str, Correlation]
) -> Figure:
    """Draws accuracy over a measure, a color for each series, and the rank correlation of every measure."""
    figure, (panel, bars) = _panels(2, height=2.6)
    for series in table.series:
        found = [(cell.mean, y) for (name, x), y in zip(table.points, accuracies, strict=True)
                 if name == series and (cell := table.cell(name, x, metric))]  # fmt: skip
        panel.plot([x for x, _ in found], [y for _, y in found], linestyle="", marker="o", label=series)
    panel.set_xlabel(metric.partition(": ")[2])
    panel.set_ylabel("mean top-1 in %")
    panel.legend()
    for number, found_of in enumerate(reversed(correlations.values())):
        bars.plot(found_of.interval, [number, number], color="0.6", marker="")
        bars.plot([found_of.overall], [number], color="black", marker="o")
    bars.set_yticks(range(len(correlations)), [name.replace("_", " ") for name in reversed(correlations)])
    bars.axvline(0, color="0.8", linewidth=rcParams["axes.linewidth"])
    bars.set_xlim(-1, 1)
    bars.set_xlabel("rank correlation")
    return figure


def _clustered_bars(panel: Any, series: Sequence[str], cells_of: Callable[[str], list[Cell | None]]) -> list[Any]:
    """Draws a cluster of bars for each cell of a series, with a bar for each series; returns the bars by series."""
    width, drawn = 0.8 / len(series), []
    for number, name in enumerate(series):
        cells = cells_of(name)
        drawn.append(
            panel.bar(
                [column + (number - (len(series) - 1) / 2) * width for column in range(len(cells))],
                [cell.mean if cell else math.nan for cell in cells],
                width * 0.92,
                yerr=[cell.spread if cell else math.nan for cell in cells],
                error_kw={"linewidth": rcParams["axes.linewidth"]},
                label=name,
            )
        )
    return drawn


def _panels(count: int, height: float) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(COLUMN * (2 if count > 1 else 1), height), layout="constrained")
    panels: Any = figure.subplots(1, count, squeeze=False)[0]
    return figure, list(panels)


def _legend(figure: Figure, panel: Any, location: str) -> None:
    """Draws one legend for the whole figure, since all its panels show the same series."""
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=rcParams["figure.labelsize"], loc=location, ncols=len(labels))


def _y_label(label: str, metric: str) -> str:
    return f"{_readable(metric)}, top-1 in %" if label == "top-1" else "mean transfer, top-1 in %"


def _readable(metric: str) -> str:
    for beginning in ("digits_", "imagenet_", "probe: ", "transfer, "):
        metric = metric.removeprefix(beginning)
    return metric.removesuffix(", top-5").replace("_", " ")
