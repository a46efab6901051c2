"""Fig. 3: test top-1 and mean transfer over dataset size, 1/10x to 50x; prefixes of a clone ("c, d_c", guidance 2)."""

from matplotlib.figure import Figure

from fakeit_eval.figures.draw import draw_curves
from fakeit_eval.figures.table import Table
from fakeit_eval.studies.base import Base, Options, Point

TITLE = "Accuracy over dataset size"
X_LABEL = "data set size (multiples of the real one)"
EVALUATIONS = ("test", "probe")


def default_values(base: Base) -> list[float | str]:
    return [0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0]


def points(base: Base, values: list[float | str], options: Options) -> list[Point]:
    sizes = [float(value) for value in values]
    clone = base.synthetic("c_d_cfg2", scale=max(sizes))
    return [Point(series=base.name, x=size, run=run) for size in sizes for run in base.runs(clone, options, scale=size)]


def draw(table: Table, base: Base) -> Figure:
    curves = [("top-1", base.main_set), ("transfer", "transfer, mean")]
    return draw_curves(table, base, X_LABEL, curves, is_log=True)
