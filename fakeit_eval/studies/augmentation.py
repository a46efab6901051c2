"""Tab. 2: test top-1 with plain augmentation and with DINO's crops, on real images and on "c" at guidance 7.5."""

import math

from matplotlib.figure import Figure

from fakeit_eval.figures.draw import draw_bars
from fakeit_eval.figures.table import Table
from fakeit_eval.studies.base import Base, Options, Point

TITLE = "What augmentation gains on real and on synthetic images"
X_LABEL = "training images"
EVALUATIONS = ("test",)
AUGMENTATIONS = {"plain": "plain", "dino": "DINO's crops"}


def default_values(base: Base) -> list[float | str]:
    return list(AUGMENTATIONS)


def points(base: Base, values: list[float | str], options: Options) -> list[Point]:
    data = {"real": base.real(options), "synthetic": base.synthetic("c_cfg7_5")}
    return [
        Point(series=AUGMENTATIONS[str(value)], x=name, run=run)
        for name, clone in data.items()
        for value in values
        for run in base.runs(clone, options, augmentation=str(value))
    ]


def conclude(table: Table, base: Base) -> str:
    """Says whether DINO's crops gain more on synthetic than on real images, as they do in the paper."""
    gains = {}
    for name in ("real", "synthetic"):
        plain, dino = (table.cell(AUGMENTATIONS[kind], name, base.main_set) for kind in ("plain", "dino"))
        if plain is None or dino is None:
            return "Both augmentations are needed to compute the gain."
        gains[name] = (dino.mean - plain.mean, math.hypot(dino.spread, plain.spread))
    (real, real_spread), (synthetic, synthetic_spread) = gains["real"], gains["synthetic"]
    more, spread = synthetic - real, math.hypot(real_spread, synthetic_spread)
    word = "within the spread of" if abs(more) <= spread else "larger than" if more > 0 else "smaller than"
    return (
        f"DINO's crops gain {synthetic:+.1f} ± {synthetic_spread:.1f} points on synthetic images and {real:+.1f} ± "
        f"{real_spread:.1f} on real ones: the gain on synthetic images is {word} that on real ones "
        "(the paper: +14.7 and +0.8)."
    )


def draw(table: Table, base: Base) -> Figure:
    return draw_bars(table, X_LABEL, [("top-1", base.main_set)])
