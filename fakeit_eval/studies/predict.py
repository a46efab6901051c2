"""Which measure of a clone predicts the accuracy of networks that are trained on it, before any is trained?

Clones of equal size differ in guidance, prompt, steps or solver, one of them at a time. Accuracy is the mean top-1 on the
sketches and the renditions. The measure and the backbone of the first row were named in docs/log.md before the study ran.
"""

import numpy as np
from matplotlib.figure import Figure

from fakeit_eval.figures.draw import draw_prediction
from fakeit_eval.figures.table import CLONE, Table
from fakeit_eval.reporting.correlation import Correlation, rank_correlation
from fakeit_eval.reporting.table import Table as Lines
from fakeit_eval.reporting.table import render_markdown
from fakeit_eval.studies.base import Base, Clone, Options, Point

TITLE = "Which measure of a clone predicts accuracy"
X_LABEL = "clone"
EVALUATIONS = ("test", "data")
NAMED = "coverage"
"""The measure that was named before."""
GUIDANCE = ("1", "1.5", "3", "4", "5", "7.5", "10")
PROMPTS = ("c", "c_h", "c_h_inside_b", "c_d", "photo_of_c", "image_of_c")
SOLVERS = (
    "DDIMScheduler", "PNDMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "UniPCMultistepScheduler",
    "HeunDiscreteScheduler", "LMSDiscreteScheduler",
)  # fmt: skip
RECIPES_STEPS = 50
"""Steps of ImageNet's recipes: with their own scheduler this clone is that of guidance 7.5, which is there already."""
SOLVER_STEPS = 10
"""Steps of the clones that differ in the solver."""


def default_values(base: Base) -> list[float | str]:
    return [
        *(f"guidance {value}" for value in GUIDANCE),
        *(f"prompt {name}" for name in PROMPTS),
        *(f"steps {value:g}" for value in base.steps if base.steps_scheduler or value != RECIPES_STEPS),
        *(f"solver {name}" for name in SOLVERS),
    ]


def points(base: Base, values: list[float | str], options: Options) -> list[Point]:
    return [
        Point(series=str(value).split()[0], x=str(value).split()[1], run=run)
        for value in values
        for run in base.runs(_clone(base, *str(value).split()), options)
    ]


def _clone(base: Base, study: str, value: str) -> Clone:
    if study == "guidance":
        return base.synthetic("c_d_cfg2", "--guidance-scale", value)
    if study == "prompt":
        return base.synthetic(f"{value}_cfg2")
    if study == "steps":
        scheduler = ("--scheduler", base.steps_scheduler) if base.steps_scheduler else ()
        return base.synthetic("c_d_cfg7_5", *scheduler, "--num-inference-steps", value)
    return base.synthetic("c_d_cfg2", "--scheduler", value, "--num-inference-steps", str(SOLVER_STEPS))


def accuracies(table: Table, base: Base) -> list[float]:
    """Mean top-1 on the shifted test sets, over sets and seeds, of each clone."""
    return [
        float(np.mean([cell.mean for name in base.shifted_sets if (cell := table.cell(series, x, name))]))
        for series, x in table.points
    ]


def correlations(table: Table, base: Base) -> dict[str, Correlation]:
    """Rank correlation with the accuracies of each measure that differs between clones; the named measure is first."""
    expected, studies = np.array(accuracies(table, base)), [series for series, _ in table.points]
    measures = [name for name in table.metrics if name.startswith(CLONE)]
    found = {}
    for name in sorted(measures, key=lambda name: name != CLONE + NAMED):
        cells = [table.cell(series, x, name) for series, x in table.points]
        if all(cells):
            values = np.array([cell.mean for cell in cells if cell])
            if len(np.unique(values)) > 1:
                found[name.removeprefix(CLONE)] = rank_correlation(values, expected, studies)
    return found


def draw(table: Table, base: Base) -> Figure:
    return draw_prediction(table, CLONE + NAMED, accuracies(table, base), correlations(table, base))


def conclude(table: Table, base: Base) -> str:
    """A table with the correlation of each measure, and the one that was named before in a table of its own."""
    found = correlations(table, base)
    studies = list(dict.fromkeys(series for series, _ in table.points))
    header = ("measure", "rank correlation", "95 % interval", *(f"without {study}" for study in studies))

    def rendered(names: list[str]) -> str:
        rows = [
            (
                name.replace("_", " "),
                f"{found[name].overall:.2f}",
                "{:.2f} to {:.2f}".format(*found[name].interval),
                *(f"{found[name].without[study]:.2f}" for study in studies),
            )
            for name in names
        ]
        return render_markdown(Lines("", header, rows))

    others = [name for name in found if name != NAMED]
    sets = " and ".join(base.shifted_sets)
    return "\n".join([
        f"Spearman's correlation with the mean top-1 on {sets}, over {len(table.points)} clones; and over those of all "
        "studies but one. The measure that was named before:",
        "", rendered([name for name in found if name == NAMED]), "", "All others:", "", rendered(others),
    ])  # fmt: skip
