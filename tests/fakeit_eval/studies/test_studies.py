"""Checks the runs of each study, and what it draws of a table with known numbers."""

from typing import Any

import numpy as np
import pytest

from fakeit_eval.analyze import MEASURES
from fakeit_eval.dataset_measures.measure_all import MEANINGS
from fakeit_eval.figures.draw import figure_style
from fakeit_eval.figures.page import write_study
from fakeit_eval.figures.table import Row, Table, rows_of_results
from fakeit_eval.studies.base import Base, Options
from fakeit_eval.study import base_names, find_base, find_study, study_names

METRICS = [
    *(
        f"digits_{name}{end}"
        for name in ("clean", "rescanned", "sketch", "restyled", "hard")
        for end in ("", ", top-5")
    ),
    *(f"probe: {name}" for name in ("photos", "wine", "breast_cancer")),
    "transfer, offline",
    "transfer, mean",
    *(f"{measure}, {domain}" for measure in MEASURES for domain in ("near", "far", "transfer")),
    *(f"clone: {measure}" for measure in MEANINGS),
]


def made_up(name: str, base: Base) -> Table:
    """Makes a table with every metric of every point; its values are 50 + seed + the metric's number."""
    module = find_study(name)
    points = module.points(base, module.default_values(base), Options())
    return Table([
        Row(series=point.series, x=point.x, seed=point.run.seed, metric=metric, value=50.0 + point.run.seed + number)
        for point in points
        for number, metric in enumerate(METRICS)
    ])  # fmt: skip


@pytest.mark.parametrize("base", base_names())
@pytest.mark.parametrize("name", study_names())
def test_studies__runs_are_distinct_and_reproducible(name: str, base: str) -> None:
    module, found = find_study(name), find_base(base)
    options = Options(real="" if base == "digits" else "/data/imagenet/train")
    first, second = (module.points(found, module.default_values(found), options) for _ in range(2))
    assert first == second and len({point.run.key for point in first}) == len(first)
    assert {point.run.seed for point in first} == {0, 1, 2}


def test_studies__card_and_features_share_their_runs() -> None:
    base = find_base("digits")
    of = {name: find_study(name) for name in ("card", "features")}
    runs = {name: {p.run for p in m.points(base, m.default_values(base), Options())} for name, m in of.items()}
    assert len(runs["card"] & runs["features"]) == len(runs["card"])


@pytest.mark.parametrize("base", base_names())
def test_size__runs_are_prefixes_of_one_clone(base: str) -> None:
    module, found = find_study("size"), find_base(base)
    points = module.points(found, module.default_values(found), Options())
    assert len({point.run.data for point in points}) == 1
    scales = {point.x: point.run.scale * found.recipe_images_per_class for point in points}
    assert scales == {x: pytest.approx(x * found.images_per_class) for x in scales}


def test_size__iterations_or_epochs_stay_the_same() -> None:
    module, base = find_study("size"), find_base("digits")

    def epochs(fixed: str) -> dict[float, int]:
        points = module.points(base, [0.1, 1.0, 10.0], Options(fixed=fixed))
        found = {p.x: next(s for s in p.run.settings if s.startswith("num_epochs=")) for p in points}
        return {x: int(text.partition("=")[2]) for x, text in found.items()}

    assert epochs("iterations") == {0.1: 400, 1.0: 40, 10.0: 4} and set(epochs("epochs").values()) == {40}


@pytest.mark.parametrize("name", study_names())
def test_studies__pages_and_figures_are_drawn(name: str, tmp_path: Any) -> None:
    base = find_base("digits")
    table = made_up(name, base)
    page = write_study(name, find_study(name), base, table, tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv", ".json", ".md", ".png", ".svg"}
    text = page.read_text()
    assert f"({name}-digits.png)" in text and "± 1.0" in text and "3 training seeds" in text
    assert len((tmp_path / f"{name}-digits.csv").read_text().splitlines()) == len(table.rows) + 1
    from PIL import Image

    with Image.open(tmp_path / f"{name}-digits.png") as image:
        pixels = np.asarray(image.convert("L"))
    # The figure is as wide as one or two columns at 200 dots per inch, and not empty.
    assert 600 < pixels.shape[1] < 1400 and 0.01 < (pixels < 200).mean() < 0.9


def test_studies__the_style_of_figures_changes_no_global_setting(tmp_path: Any) -> None:
    from matplotlib import rcParams

    base, before = find_base("digits"), dict(rcParams)
    write_study("prompts", find_study("prompts"), base, made_up("prompts", base), tmp_path)
    assert dict(rcParams) == before and before["font.size"] != 6
    with figure_style():
        assert rcParams["font.size"] == 6


def test_augmentation__the_conclusion_depends_on_the_spread() -> None:
    module, base = find_study("augmentation"), find_base("digits")

    def table(synthetic_gain: float) -> Table:
        return Table([
            Row(series=series, x=x, seed=seed, metric="digits_clean", value=80 + seed + gain)
            for x, gains in (("real", (0.0, 2.0)), ("synthetic", (0.0, synthetic_gain)))
            for series, gain in zip(("plain", "DINO's crops"), gains, strict=True)
            for seed in range(3)
        ])  # fmt: skip

    text = module.conclude(table(8.0), base)
    assert "+8.0 ± 1.4 points on synthetic" in text and "is larger than that on real ones" in text
    assert "is within the spread of that on real ones" in module.conclude(table(3.0), base)
    assert "is smaller than that on real ones" in module.conclude(table(-4.0), base)


def test_table__means_and_spreads_are_over_seeds() -> None:
    table = Table([Row(series="a", x=1.0, seed=seed, metric="m", value=value) for seed, value in enumerate((1, 2, 3))])
    cell = table.cell("a", 1.0, "m")
    assert cell is not None and (cell.mean, cell.spread, cell.num_seeds) == (2, 1, 3)
    assert table.cell("a", 2.0, "m") is None and table.curve("a", "m") == [(1.0, cell)]


def test_table__transfer_is_the_mean_of_tasks_without_cog() -> None:
    def probe(name: str, value: float) -> dict[str, Any]:
        return {"task": "probe", "value": value, "data": {"name": name}, "settings": {}}

    results = [probe("pets", 80.0), probe("dtd", 60.0), probe("inaturalist_2018", 40.0), probe("cog_l1", 1.0)]
    families = {"pets": "small", "dtd": "small", "inaturalist_2018": "inaturalist", "cog_l1": "cog"}
    rows = rows_of_results(results, series="a", x=1.0, seed=0, family_of=families.__getitem__)
    found = {row.metric: row.value for row in rows}
    assert found["transfer, small"] == 70 and found["transfer, cog"] == 1 and found["transfer, mean"] == 60


CAPTIONS = {
    "augmentation": (
        "Table 2. Impact of data-augmentation for models trained on real and synthetic datasets",
        {("real_images/train", ""), ("B/c_cfg7_5", "")},
    ),
    "prompts": (
        "Table 4. Top-1 Accuracy on ImageNet-100 when prepending the prompt ... Guidance scale is equal to 2.0.",
        {(f"B/{prompt}_cfg2", "") for prompt in ("c", "c_h", "c_d", "c_h_inside_b", "photo_of_c", "image_of_c")},
    ),
    "features": (
        "Figure 1. Feature analyses for models. ... we use synthetic data generated with guidance scale equal to 7.5.",
        {
            ("real_images/train", ""),
            ("B/c_cfg7_5", ""),
            ("B/c_h_inside_b_cfg7_5", ""),
            ("B/c_h_inside_b_cfg7_5", "10x"),
        },
    ),
    "guidance": (
        "Figure 2. Impact of the guidance scale parameter ... for p_c = c, d_c. In the left plot, steps are set to 50",
        {("B/c_d_cfg2", f"--guidance-scale {value}") for value in ("1", "1.5", "2", "3", "5", "7.5")},
    ),
    "steps": (
        "Figure 2. ... number of diffusion steps. ... for p_c = c, d_c ... in the right plot guidance scale is 7.5.",
        {("B/c_d_cfg7_5", f"--num-inference-steps {value}") for value in (5, 10, 25, 50, 100)},
    ),
    "size": (
        "Figure 3. Scaling the number of training images. ... using (1/10)-th to 50x images",
        {("B/c_d_cfg2", "50x")},
    ),
    "card": (
        "Figure 4. Performance card of models ... using p_c = c, h_c inside b as the prompt",
        {("real_images/train", ""), ("B/c_h_inside_b_cfg7_5", "")},
    ),
}
"""For each study the paper's caption, and the expected recipes: config, and options other than the 1x size."""
NOT_THE_PAPERS = {"predict"}
"""Studies that the paper does not have."""


@pytest.mark.parametrize("name", CAPTIONS)
def test_studies__recipes_are_those_of_the_paper(name: str) -> None:
    assert set(CAPTIONS) | NOT_THE_PAPERS == set(study_names())
    module, base = find_study(name), find_base("imagenet_100")
    points = module.points(base, module.default_values(base), Options(real="/data/imagenet/train"))
    found = set()
    for clone in {point.run.data for point in points}:
        options = " ".join(clone.options).replace("--source /data/imagenet/train", "")
        size, _, rest = options.removeprefix("--images-per-class ").partition(" ")
        multiple = f"{int(size) / base.images_per_class:g}x" if size else "1x"
        found.add((clone.recipe.replace("imagenet_100_sd", "B"), rest or ("" if multiple == "1x" else multiple)))
    assert found == CAPTIONS[name][1]


def test_card__has_the_papers_axes() -> None:
    """The axes are five test sets, v2's variants being one, and three task families; IN1K is in none."""
    sets = ["imagenet_val", "imagenet_v2_matched_frequency", "imagenet_v2_threshold_0_7", "imagenet_v2_top_images",
            "imagenet_sketch", "imagenet_r", "imagenet_a"]  # fmt: skip
    tasks = {
        "aircraft": "small",
        "pets": "small",
        "inaturalist_2018": "inaturalist",
        "cog_in1k": "cog",
        "cog_l1": "cog",
    }
    results: list[dict[str, Any]] = [
        {"task": "test", "data": {"name": name}, "value": 10.0 * number, "top5": 12.0 * number, "interval": [0, 1],
         "top5_interval": [0, 1], "settings": {}}
        for number, name in enumerate(sets)
    ]  # fmt: skip
    results += [
        {"task": "probe", "data": {"name": name}, "value": 50.0 + number, "settings": {}}
        for number, name in enumerate(tasks)
    ]
    table = Table([
        row
        for series in ("real", "synthetic")
        for row in rows_of_results(results, series=series, x="", seed=0, family_of=tasks.__getitem__)
    ])  # fmt: skip
    base, module = find_base("imagenet_100"), find_study("card")
    assert module.suite(base) == "imagenet_cog"
    axes = list(module.draw(table, base).axes)
    labels = [[text.get_text().replace("\n", " ") for text in panel.get_xticklabels()] for panel in axes]
    assert labels[0] == labels[1] and sorted(labels[0]) == ["a", "r", "sketch", "v2", "val"]
    assert sorted(labels[2]) == ["cog", "inaturalist", "small"]
    v2 = labels[0].index("v2")
    assert axes[0].lines[0].get_ydata()[v2] == pytest.approx(20.0) and axes[1].lines[0].get_ydata()[
        v2
    ] == pytest.approx(24)
    cell = table.cell("real", "", "transfer, cog")
    assert cell is not None and cell.mean == 54.0


def test_table__v2_weighs_as_much_as_val_in_report_and_study() -> None:
    names = ["imagenet_val", *(f"imagenet_v2_{name}" for name in ("matched_frequency", "threshold_0_7", "top_images"))]
    results: list[dict[str, Any]] = [
        {"task": "analyze", "data": {"name": name, "num_samples": 10}, "settings": {"group": "near", "reading": "text"},
         "measures": dict.fromkeys(MEASURES, float(value)), "run": "r", "trained_on": "t"}
        for name, value in zip(names, (1, 3, 4, 5), strict=True)
    ]  # fmt: skip
    rows = rows_of_results(results, series="s", x="", seed=0, family_of=lambda name: "")
    (row,) = [row for row in rows if row.metric == "sparsity, near"]
    assert row.value == 2.5
    from fakeit_eval.reporting.report import render

    (line,) = [line for line in render(results, "csv", "long").splitlines() if "Val, v2" in line]
    assert ",2.5" in line


def test_predict__a_measure_that_follows_accuracy_comes_out_above_one_that_does_not(tmp_path: Any) -> None:
    module, base = find_study("predict"), find_base("digits")
    points = module.points(base, module.default_values(base), Options())
    clones = list(dict.fromkeys(point.run.data for point in points))
    assert len(clones) >= 24
    noise = np.random.default_rng(0).permutation(len(clones))
    rows = []
    for point in points:
        number = clones.index(point.run.data)
        values = dict.fromkeys(base.shifted_sets, 40.0 + number + point.run.seed)
        values |= {"clone: coverage": number / 100, "clone: vendi_score": float(noise[number])}
        rows += [Row(series=point.series, x=point.x, seed=point.run.seed, metric=m, value=v) for m, v in values.items()]
    table = Table(rows)
    found = module.correlations(table, base)
    assert list(found) == ["coverage", "vendi_score"]
    assert found["coverage"].overall == pytest.approx(1) and abs(found["vendi_score"].overall) < 0.5
    assert set(found["coverage"].without) == {"guidance", "prompt", "steps", "solver"}
    page = write_study("predict", module, base, table, tmp_path).read_text()
    assert page.index("| coverage") < page.index("All others:") < page.index("| vendi score")
