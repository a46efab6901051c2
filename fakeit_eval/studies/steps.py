"""Fig. 2b: test top-1 and mean transfer over the number of diffusion steps, prompt "c, d_c" at guidance 7.5."""

from matplotlib.figure import Figure

from fakeit_eval.figures.draw import draw_curves
from fakeit_eval.figures.table import Table
from fakeit_eval.studies.base import Base, Options, Point

TITLE = "Accuracy over diffusion steps"
X_LABEL = "diffusion steps"
EVALUATIONS = ("test", "probe")


def default_values(base: Base) -> list[float | str]:
    return [float(step) for step in base.steps]


def points(base: Base, values: list[float | str], options: Options) -> list[Point]:
    scheduler = ("--scheduler", base.steps_scheduler) if base.steps_scheduler else ()
    return [
        Point(series=base.name, x=value, run=run)
        for value in values
        for run in base.runs(base.synthetic("c_d_cfg7_5", *scheduler, "--num-inference-steps", f"{value:g}"), options)
    ]


def draw(table: Table, base: Base) -> Figure:
    return draw_curves(table, base, X_LABEL, [("top-1", base.main_set), ("transfer", "transfer, mean")])
