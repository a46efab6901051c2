"""The table of a study: a row for each run and metric, with means and standard deviations over seeds."""

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from fakeit_eval.reporting.averages import family_means, mean_of_sets

CLONE = "clone: "
"""Begins the metrics that are measures of the clone."""
NOT_A_LEVEL = ("cog_in1k",)
"""Tasks of ImageNet-CoG that are not one of its five levels; the paper's mean is over the levels."""


@dataclass(frozen=True, kw_only=True)
class Row:
    series: str
    x: float | str
    seed: int
    metric: str
    """Top-1 of a test set ("digits_clean") or its top-5 ("digits_clean, top-5"), a task ("probe: wine"), "transfer,
    mean", "transfer, FAMILY", a measure of features in a domain ("sparsity, far"), or of the clone ("clone: coverage")."""
    value: float
    """Percent for accuracies; the measure's own unit for measures."""
    low: float | None = None
    high: float | None = None
    """Bounds of the run's 95 % confidence interval; None if the result has none."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A metric of one series at one x, over seeds."""

    mean: float
    spread: float
    """Standard deviation over seeds; 0 for one seed."""
    num_seeds: int


@dataclass(frozen=True)
class Table:
    rows: list[Row]

    @property
    def points(self) -> list[tuple[str, float | str]]:
        """All pairs of series and x, in the order of the study."""
        return list(dict.fromkeys((row.series, row.x) for row in self.rows))

    @property
    def series(self) -> list[str]:
        return list(dict.fromkeys(row.series for row in self.rows))

    @property
    def metrics(self) -> list[str]:
        return list(dict.fromkeys(row.metric for row in self.rows))

    def cell(self, series: str, x: float | str, metric: str) -> Cell | None:
        """Mean and standard deviation of a metric over seeds; None if no run has it."""
        values = [row.value for row in self.rows if (row.series, row.x, row.metric) == (series, x, metric)]
        if not values:
            return None
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        return Cell(mean=statistics.mean(values), spread=spread, num_seeds=len(values))

    def curve(self, series: str, metric: str) -> list[tuple[float | str, Cell]]:
        """x and cell of a series for a metric, in the order of the study."""
        found = [(x, self.cell(name, x, metric)) for name, x in self.points if name == series]
        return [(x, cell) for x, cell in found if cell is not None]

    def as_dicts(self) -> list[dict[str, Any]]:
        return [asdict(row) for row in self.rows]


def rows_of_results(
    results: list[dict[str, Any]], *, series: str, x: float | str, seed: int, family_of: Callable[[str], str]
) -> list[Row]:
    """Converts the results of one run to rows; `family_of` returns the family of a task by its name."""

    def row(metric: str, value: float, interval: list[float] | None = None) -> Row:
        low, high = interval or (None, None)
        return Row(series=series, x=x, seed=seed, metric=metric, value=value, low=low, high=high)

    rows, transfer = [], dict[str, list[float]]()
    measures, tested = dict[tuple[str, str], list[tuple[str, float]]](), list[tuple[str, float, float]]()
    for result in results:
        name, task = str(result["data"]["name"]), result["task"]
        if task == "test":
            rows.append(row(name, result["value"], result["interval"]))
            rows.append(row(f"{name}, top-5", result["top5"], result["top5_interval"]))
            tested.append((name, result["value"], result["top5"]))
        elif task == "probe":
            rows.append(row(f"probe: {name}", result["value"], result.get("interval")))
            if name not in NOT_A_LEVEL:
                transfer.setdefault(family_of(name), []).append(result["value"])
        elif task == "data":
            rows += [row(f"{CLONE}{name}", of["value"], of.get("interval")) for name, of in result["numbers"].items()]
        elif task == "analyze":
            for measure, value in result["measures"].items():
                measures.setdefault((measure, result["settings"]["group"]), []).append((name, value))
    first, five = (family_means((name, scores[column]) for name, *scores in tested) for column in (0, 1))
    for name in first:
        # The mean over variants, such as those of v2, is a metric of its own.
        if all(name != variant for variant, *_ in tested):
            rows += [row(name, first[name]), row(f"{name}, top-5", five[name])]
    rows += [row(f"transfer, {domain}", statistics.mean(values)) for domain, values in transfer.items()]
    if transfer:
        everything = [value for domain, values in transfer.items() if domain != "cog" for value in values]
        rows.append(row("transfer, mean", statistics.mean(everything)))
    rows += [row(f"{measure}, {domain}", mean_of_sets(values)) for (measure, domain), values in measures.items()]
    return rows
