"""Tab. 4 and the main comparison: test top-1 and mean transfer of the paper's six prompts, at guidance 2."""

from matplotlib.figure import Figure

from fakeit_eval.figures.draw import draw_bars
from fakeit_eval.figures.table import Table
from fakeit_eval.studies.base import Base, Options, Point

TITLE = "Accuracy over prompts"
X_LABEL = "prompt"
EVALUATIONS = ("test", "probe")
PROMPTS = {
    "c": "c",
    "c_h": "c, h_c",
    "c_d": "c, d_c",
    "c_h_inside_b": "c, h_c inside b",
    "photo_of_c": "a photo of c",
    "image_of_c": "an image of c",
}


def default_values(base: Base) -> list[float | str]:
    return list(PROMPTS)


def points(base: Base, values: list[float | str], options: Options) -> list[Point]:
    return [
        Point(series=base.name, x=PROMPTS.get(str(value), str(value)), run=run)
        for value in values
        for run in base.runs(base.synthetic(f"{value}_cfg2"), options)
    ]


def draw(table: Table, base: Base) -> Figure:
    return draw_bars(table, X_LABEL, [("top-1", base.main_set), ("transfer", "transfer, mean")])
