"""Fig. 2a: test top-1 and mean transfer over the guidance scale of the training images, prompt "c, d_c"."""

from matplotlib.figure import Figure

from fakeit_eval.figures.draw import draw_curves
from fakeit_eval.figures.table import Table
from fakeit_eval.studies.base import Base, Options, Point

TITLE = "Accuracy over guidance scale"
X_LABEL = "guidance scale"
EVALUATIONS = ("test", "probe")


def default_values(base: Base) -> list[float | str]:
    return [1.0, 1.5, 2.0, 3.0, 5.0, 7.5]


def points(base: Base, values: list[float | str], options: Options) -> list[Point]:
    return [
        Point(series=base.name, x=value, run=run)
        for value in values
        for run in base.runs(base.synthetic("c_d_cfg2", "--guidance-scale", f"{value:g}"), options)
    ]


def draw(table: Table, base: Base) -> Figure:
    return draw_curves(table, base, X_LABEL, [("top-1", base.main_set), ("transfer", "transfer, mean")])
