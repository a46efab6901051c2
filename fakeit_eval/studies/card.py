"""Fig. 4, the performance card of real and synthetic images: test top-1 and top-5, and transfer by task family.

The synthetic images have the prompt "c, h_c inside b". The caption does not give their guidance scale, so it is an
option."""

from matplotlib.figure import Figure

from fakeit_eval.figures.draw import draw_spiders
from fakeit_eval.figures.table import Table
from fakeit_eval.studies.base import Base, Options, Point

TITLE = "Performance card"
X_LABEL = ""
EVALUATIONS = ("test", "probe")


def suite(base: Base) -> str:
    """The base's suite with the CoG levels, which are one of the card's three task families."""
    return base.card_suite or base.suite


def default_values(base: Base) -> list[float | str]:
    return ["real", "synthetic"]


def points(base: Base, values: list[float | str], options: Options) -> list[Point]:
    guidance = ("--guidance-scale", f"{options.guidance:g}") if options.guidance else ()
    clones = {"real": base.real(options), "synthetic": base.synthetic("c_h_inside_b_cfg7_5", *guidance)}
    return [
        Point(series=str(value), x="", run=run) for value in values for run in base.runs(clones[str(value)], options)
    ]


def draw(table: Table, base: Base) -> Figure:
    return draw_spiders(table, base)
