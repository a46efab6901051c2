"""Fig. 4, the performance card: top-1 and top-5 on the test sets, and transfer, of real against synthetic images."""

from matplotlib.figure import Figure

from fakeit_eval.studies.base import Base, Options, Point
from fakeit_eval.studies.drawing import draw_spiders
from fakeit_eval.studies.table import Table

TITLE = "Performance card"
X_LABEL = ""
EVALUATIONS = ("test", "probe")


def default_values(base: Base) -> list[float | str]:
    return ["real", "synthetic"]


def points(base: Base, values: list[float | str], options: Options) -> list[Point]:
    clones = {"real": base.real(options), "synthetic": base.synthetic("c_d_cfg2")}
    return [
        Point(series=str(value), x="", run=run) for value in values for run in base.runs(clones[str(value)], options)
    ]


def draw(table: Table, base: Base) -> Figure:
    return draw_spiders(table, base)
