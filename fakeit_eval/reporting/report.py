"""Renders results as tables of scores, of feature measures, and of what clones are worth.

Scores are next to the paper's numbers for the same dataset and class count. Layouts of scores: long, with a row for each
result; wide, with a row for each run and a column for each dataset."""

import csv
from functools import cache
from importlib.resources import files
from typing import Any

from builders.errors import UserError
from fakeit_eval.analyze import MEASURES
from fakeit_eval.reporting.averages import family, mean_of_sets
from fakeit_eval.reporting.clone_tables import clone_tables
from fakeit_eval.reporting.table import FORMATS, Row, Table, without_empty_columns
from fakeit_eval.tasks.base import read_tasks
from fakeit_eval.test_sets.base import DOMAINS

HEADER = ("run", "trained on", "task", "data", "images", "top-1", "95 %", "top-5", "per class", "note")
FEATURES_HEADER = (
    "run",
    "trained on",
    "data",
    "images",
    "normalization",
    *(name.replace("_", " ") for name in MEASURES),
)
LAYOUTS = ("long", "wide")
PAPER = "the paper's"
ALL_DOMAINS = {**DOMAINS, "transfer": "transfer"}


def render(results: list[dict[str, Any]], format_name: str = "markdown", layout: str = "long") -> str:
    """Renders results as one table of scores, tables of measures, and tables of clones, as far as there are such results.

    Raises:
        UserError: the format or the layout is unknown.
    """
    check_format(format_name)
    if layout not in LAYOUTS:
        raise UserError(f"unknown layout '{layout}'; choose from {', '.join(LAYOUTS)}")
    clones = [result for result in results if result["task"] == "data"]
    scores = [result for result in results if "measures" not in result and result["task"] != "data"]
    features = [result for result in results if "measures" in result]
    tables = []
    if scores:
        tables.append(_long_table(scores) if layout == "long" else _wide_table(scores))
    if features:
        tables += [_features_table(features), *_mean_tables(features)]
    if clones:
        tables += clone_tables(clones)
    return "\n\n".join(FORMATS[format_name](table) for table in tables)


def check_format(name: str) -> None:
    """Checks the name of a format, so that a mistake is reported before anything is evaluated.

    Raises:
        UserError: the format is unknown.
    """
    if name not in FORMATS:
        raise UserError(f"unknown format '{name}'; choose from {', '.join(FORMATS)}")


def _long_table(results: list[dict[str, Any]]) -> Table:
    rows: list[Row] = [
        (
            result["run"],
            result["trained_on"],
            _task(result),
            result["data"]["name"],
            f"{_num_tested(result):,}",
            _value(result),
            _interval(result),
            f"{result['top5']:.1f}" if "top5" in result else "",
            f"{result['mean_per_class']:.1f}" if "mean_per_class" in result else "",
            _note(result),
        )
        for result in results
    ]
    theirs: list[Row] = [
        (PAPER, row["trained_on"], row["task"], row["data"], "", row["top1"], "", "", "", row["source"])
        for row in _paper_rows(results)
    ]
    return without_empty_columns(Table("Scores: top-1 and top-5 in percent", HEADER, rows + theirs))


def _wide_table(results: list[dict[str, Any]]) -> Table:
    """A table of top-1, with ± the spread over seeds if there are several."""
    columns = list(dict.fromkeys(_column(result) for result in results))
    found: dict[Row, dict[str, str]] = {}
    for result in results:
        row = found.setdefault((result["run"], result["trained_on"]), {})
        # A cell may hold several results, such as those of other settings or of changed images.
        others = f"{row[_column(result)]} / " if _column(result) in row else ""
        row[_column(result)] = others + _value(result)
    for paper in _paper_rows(results):
        row = found.setdefault((f"{PAPER} ({paper['source']})", paper["trained_on"]), {})
        name = paper["data"]
        row[name if paper["task"] == "test" else f"{name} ({read_tasks()[name].probe.replace('_', ' ')})"] = paper[
            "top1"
        ]
    header = ("run", "trained on", *columns)
    rows = [(*names, *(values.get(column, "") for column in columns)) for names, values in found.items()]
    return Table("Scores: top-1 in percent", header, rows)


def _column(result: dict[str, Any]) -> str:
    probe, name = result["settings"].get("probe", ""), str(result["data"]["name"])
    return f"{name} ({probe.replace('_', ' ')})" if probe else name


def _features_table(results: list[dict[str, Any]]) -> Table:
    rows = [
        (
            result["run"],
            result["trained_on"],
            result["data"]["name"],
            f"{result['data']['num_samples']:,}",
            result["settings"]["reading"],
            *(f"{result['measures'][name]:.4g}" for name in MEASURES),
            _note(result),
        )
        for result in results
    ]
    return without_empty_columns(Table("Features", (*FEATURES_HEADER, "note"), rows))


def _mean_tables(results: list[dict[str, Any]]) -> list[Table]:
    """A table of means over the datasets of each domain (the paper's Fig. 1); the variants of v2 count as one."""
    sums: dict[tuple[str, str, str, str], list[tuple[str, dict[str, float]]]] = {}
    for result in results:
        domain = result["settings"].get("group", "")
        if domain in ALL_DOMAINS:
            key = (result["run"], result["trained_on"], domain, result["settings"]["reading"])
            sums.setdefault(key, []).append((result["data"]["name"], result["measures"]))
    rows = []
    for (run, trained_on, domain, normalization), sets in sums.items():
        means = [mean_of_sets((name, found[measure]) for name, found in sets) for measure in MEASURES]
        num_sets = len({family(name) for name, _ in sets})
        rows.append((run, trained_on, ALL_DOMAINS[domain], str(num_sets), normalization, *(f"{v:.4g}" for v in means)))
    header = ("run", "trained on", "domain", "sets", *FEATURES_HEADER[4:])
    return [Table("Features, averaged over the sets of a group", header, rows)] if rows else []


def _task(result: dict[str, Any]) -> str:
    probe = result["settings"].get("probe", "")
    return f"{result['task']}: {probe.replace('_', ' ')}" if probe else result["task"]


def _num_tested(result: dict[str, Any]) -> int:
    sizes = result.get("num_images")
    return int(sizes["test"]) if sizes else int(result["data"]["num_samples"])


def _value(result: dict[str, Any]) -> str:
    spread = f" ± {result['top1_spread']:.1f}" if "top1_spread" in result else ""
    return f"{result['value']:.1f}{spread}"


def _interval(result: dict[str, Any]) -> str:
    return "{:.1f}–{:.1f}".format(*result["interval"]) if "interval" in result else ""


def _note(result: dict[str, Any]) -> str:
    seeds = result["settings"].get("seeds", [])
    notes = [
        f"in place of {result['data']['stands_for']}" if "stands_for" in result["data"] else "",
        result["data"].get("difference", ""),
        f"{result['data']['left_out']:,} images of other classes left out" if "left_out" in result["data"] else "",
        f"{len(seeds)} seeds" if len(seeds) > 1 else "",
    ]
    return "; ".join(note for note in notes if note)


def _paper_rows(results: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The paper's numbers on the datasets of the results, for models with as many classes."""
    ours = {
        (result["task"], result["data"]["name"], str(result["data"]["num_classes"]))
        for result in results
        if result["task"] != "probe" or _is_the_papers_probe(result)
    }
    return [row for task, data, classes in sorted(ours) for row in paper_rows(task, data, int(classes))]


def _is_the_papers_probe(result: dict[str, Any]) -> bool:
    task = read_tasks().get(result["data"]["name"])
    return task is not None and result["settings"].get("probe") == task.probe


def paper_rows(task: str, data: str, num_classes: int) -> list[dict[str, str]]:
    """The paper's numbers on one dataset, for models of so many classes: trained_on, top1, source (or second-hand)."""
    wanted = (task, data, str(num_classes))
    return [row for row in _read_paper_numbers() if (row["task"], row["data"], row["classes"]) == wanted]


@cache
def _read_paper_numbers() -> list[dict[str, str]]:
    with (files("fakeit_eval") / "paper_numbers.tsv").open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines, delimiter="\t"))
