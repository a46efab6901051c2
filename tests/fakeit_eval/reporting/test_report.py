"""Tables in every format; the paper's numbers appear only next to results on the same dataset and class count."""

import csv
import io
import json
from typing import Any

import pytest

from builders.errors import UserError
from fakeit_eval.analyze import MEASURES
from fakeit_eval.reporting.report import render
from fakeit_eval.reporting.results import read_result
from fakeit_eval.reporting.table import FORMATS


def score(task: str = "test", data: str = "imagenet_val", value: float = 64.3, **more: Any) -> dict[str, Any]:
    return {
        "run": "runs/a_b",
        "trained_on": "imagenet_100_sd/c_cfg2",
        "task": task,
        "value": value,
        "data": {"name": data, "num_samples": 5000, "num_classes": 100, **more.pop("data_more", {})},
        "settings": more.pop("settings", {}),
        **more,
    }


def measured(data: str, domain: str, value: float) -> dict[str, Any]:
    names = MEASURES
    return score(
        "analyze", data, value, settings={"group": domain, "reading": "text"}, measures=dict.fromkeys(names, value)
    )


def test_report__the_papers_numbers_follow_ours_and_are_marked() -> None:
    text = render([score(top5=88.25, interval=[62.9, 65.6])])
    ours, *theirs = text.splitlines()[2:]
    assert "| 64.3 " in ours and "62.9–65.6" in ours and "88.2" in ours
    assert len(theirs) == 10 and all(line.startswith("| the paper's |") for line in theirs)
    assert any("64.8" in line and "Tab. 4" in line for line in theirs)
    assert any("72.4" in line and "second-hand" in line for line in theirs)


def test_report__the_papers_numbers_for_other_data_are_left_out() -> None:
    for other in (
        score(data="imagenet_r"),
        score(data_more={"num_classes": 1000}, data="imagenet_sketch"),
        score("probe"),
    ):
        assert "the paper's" not in render([other])
    cog = score("probe", "cog_l5", 52.0, data_more={"num_classes": 1000}, settings={"probe": "sgd"})
    assert render([cog]).count("the paper's") == 4


def test_report__seeds_and_differences_are_reported() -> None:
    text = render([
        score("probe", "pets", 90.04, top1_spread=0.26, settings={"probe": "logistic_regression", "seeds": [0, 1, 2]},
              num_images={"train": 2, "val": 3, "test": 3669}),
        score(data="imagenet_r", data_more={"difference": "29,999 images instead of 30,000", "left_out": 17}),
    ])  # fmt: skip
    assert "probe: logistic regression" in text and "90.0 ± 0.3" in text and "3 seeds" in text and "3,669" in text
    assert "29,999 images instead of 30,000; 17 images of other classes left out" in text


def test_report__wide_has_a_row_for_each_run() -> None:
    lines = render([score(), score(data="imagenet_a", value=3.1)], layout="wide").splitlines()
    assert "imagenet_val" in lines[0] and "imagenet_a" in lines[0]
    assert "64.3" in lines[2] and "3.1" in lines[2]
    assert any("the paper's (Tab. 4)" in line and "64.8" in line for line in lines)


def test_report__wide_has_a_column_for_each_probe() -> None:
    kinds = {"logistic_regression": 75.0, "k_nearest_neighbors": 42.5}
    results = [score("probe", "pets", value, settings={"probe": probe}) for probe, value in kinds.items()]
    results.append(score("probe", "pets", 74.0, settings={"probe": "logistic_regression", "trials": 3}))
    header, row = list(csv.reader(io.StringIO(render(results, "csv", "wide"))))
    found = dict(zip(header, row, strict=True))
    assert found["pets (logistic regression)"] == "75.0 / 74.0" and found["pets (k nearest neighbors)"] == "42.5"


def test_report__the_papers_numbers_are_left_out_for_another_probe() -> None:
    other = score("probe", "cog_l5", 52.0, data_more={"num_classes": 1000}, settings={"probe": "k_nearest_neighbors"})
    assert "the paper's" not in render([other])


def test_report__domains_are_averaged_and_variants_of_v2_count_once() -> None:
    v2 = ("matched_frequency", "threshold_0_7", "top_images")
    results = [measured("imagenet_val", "near", 1.0), *(measured(f"imagenet_v2_{name}", "near", 4.0) for name in v2)]
    results += [measured("imagenet_r", "far", 6.0), measured("pets", "transfer", 8.0), measured("mine", "", 100.0)]
    rows = list(csv.reader(io.StringIO(render(results, "csv").split("\n\n")[-1])))
    means = {row[2]: (row[3], float(row[5])) for row in rows[1:]}
    assert means == {"Val, v2": ("2", 2.5), "Sketch, R, A": ("1", 6.0), "transfer": ("1", 8.0)}


@pytest.mark.parametrize("format_name", FORMATS)
def test_report__every_format_has_the_same_numbers(format_name: str) -> None:
    text = render([score()], format_name)
    assert "64.3" in text and "64.8" in text and text.count("Tab. 2") == 4


def test_report__csv_and_latex_are_well_formed() -> None:
    odd = score()
    odd["run"] = 'a,"b" & 50%_#{}\\'
    rows = list(csv.reader(io.StringIO(render([odd], "csv"))))
    assert rows[1][0] == odd["run"] and len({len(row) for row in rows}) == 1
    latex = render([odd], "latex")
    assert r'a,"b" \& 50\%\_\#\{\}\textbackslash{}' in latex and latex.endswith(r"\end{tabular}")
    odd["run"] = "a|b"
    assert r"| a\|b " in render([odd])


def test_report__unknown_formats_and_layouts_are_refused() -> None:
    with pytest.raises(UserError, match="unknown format 'html'; choose from markdown, terminal, csv, latex"):
        render([score()], "html")
    with pytest.raises(UserError, match="unknown layout 'tall'; choose from long, wide"):
        render([score()], layout="tall")


GOOD = {**score(top5=80.0, interval=[60.0, 70.0]), "weights_sha256": "x"}
WRONG: list[dict[str, Any]] = [
    {"top5": "x"},
    {"interval": [1]},
    {"interval": "ab"},
    {"measures": {}},
    {"num_images": {"test": "5"}},
    {"settings": []},
    {"settings": {"seeds": 5}},
    {"data": {"name": "x", "num_samples": "5", "num_classes": 1}},
]


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", "{", "[" * 200_000),
        *(json.dumps({name: value for name, value in GOOD.items() if name != left}) for left in ("settings", "data")),
        *(json.dumps({**GOOD, **wrong}) for wrong in WRONG),
    ],
    ids=range(15),
)
def test_results__a_file_that_is_not_a_result_is_refused(text: str, tmp_path: Any) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=r"x\.json' is not a result"):
        read_result(tmp_path / "x.json")
