"""Fig. 1: measures of features learned from real images, and (guidance 7.5) from "c", "c, h_c inside b" and its 10x."""

from matplotlib.figure import Figure

from fakeit_eval.figures.draw import draw_measures
from fakeit_eval.figures.table import Table
from fakeit_eval.studies.base import Base, Options, Point

TITLE = "Features learned from real and from synthetic images"
X_LABEL = "trained on"
EVALUATIONS = ("test", "analyze")


def default_values(base: Base) -> list[float | str]:
    return ["real", "c", "c, h_c inside b", "10x"]


def points(base: Base, values: list[float | str], options: Options) -> list[Point]:
    found: list[Point] = []
    for value in values:
        scale = 10.0 if value == "10x" else 0.0
        clone = {
            "real": lambda: base.real(options),
            "c": lambda: base.synthetic("c_cfg7_5"),
            "c, h_c inside b": lambda: base.synthetic("c_h_inside_b_cfg7_5"),
            "10x": lambda: base.synthetic("c_h_inside_b_cfg7_5", scale=10.0),
        }[str(value)]()
        found += [Point(series=str(value), x="", run=run) for run in base.runs(clone, options, scale=scale)]
    return found


def draw(table: Table, base: Base) -> Figure:
    return draw_measures(table, base)
