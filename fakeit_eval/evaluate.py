"""From a backbone and pictures to a result file: what `fakeit-eval test`, `probe` and `analyze` do, callable from Python.

A result that is there already, of the same weights, data and settings, is not made again.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from builders.classes.matching import match_classes
from builders.errors import UserError, suggest
from fakeit_eval.classify import classify, shared_rows
from fakeit_eval.features.extract import Loading, StoredFeatures, class_scores, extract
from fakeit_eval.features.rows import Rows, Stacked
from fakeit_eval.image_sets.base import ImageSet, Labels
from fakeit_eval.models import Model
from fakeit_eval.open_tasks import OpenedTask
from fakeit_eval.open_test_sets import OpenedSet
from fakeit_eval.probes.base import probe_names
from fakeit_eval.reporting.intervals import interval
from fakeit_eval.reporting.results import Evaluated, describe_data, is_known, result_path, write_result
from fakeit_eval.tasks.base import Task, check_counts, draw_splits

if TYPE_CHECKING:
    from fakeit_eval.probes.base import ProbeData, ProbeScore

MEASURED_FAMILIES = ("small", "inaturalist", "offline")
"""Tasks of the analysis' third group; the CoG levels are not in it (supplementary, section 3.3)."""
TRANSFER = "transfer"
"""The third group of the feature analysis; the first two are those of the test sets."""


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    probe: str = ""
    """A module of fakeit_eval/probes; "" takes the paper's for the task."""
    trials: int = 30
    """Of the search; the paper has at least 25."""
    seeds: tuple[int, ...] = (0,)
    """Of the search, and of the parts that are drawn; a result is the mean over them."""
    any_count: bool = False
    """Whether parts may have other sizes than the paper's."""

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise UserError(f"{self.trials} trials find nothing; give --trials 1 or more")
        if (
            not self.seeds
            or len(set(self.seeds)) != len(self.seeds)
            or not 0 <= min(self.seeds) <= max(self.seeds) < 2**32
        ):
            raise UserError(f"--seeds {' '.join(map(str, self.seeds))} should be different numbers from 0 to 2³² - 1")
        if self.probe and self.probe not in probe_names():
            raise UserError(f"unknown probe '{self.probe}'; {suggest(self.probe, probe_names())}")


def classify_model(model: Model, opened: OpenedSet, loading: Loading, *, again: bool = False) -> Path:
    """Tests a network's own classifier on a test set; the path of the result.

    Raises:
        UserError: a picture is broken, the network has no classifier, or it knows none of the set's classes.
    """
    backbone = model.backbone
    if not backbone.classes:
        raise UserError(f"'{model.name}' has no classifier to test; use 'fakeit-eval probe'")
    known, unknown = _of_known_classes(model, opened)
    images, data = known, _describe_set(opened, known, unknown)
    settings = {"input_size": backbone.input_size}
    path = result_path(model, "test", data, settings)
    if is_known(model, path, data) and not again:
        return path
    features = extract(model, images, loading)
    logits = class_scores(model, features)
    score = classify(logits, images.labels, images.class_names, backbone.classes)
    write_result(
        model,
        path,
        task="test",
        value=score.top1,
        unit="% top-1",
        data={**data, **_cut([features])},
        settings=settings,
        **score.fields(),
    )
    return path


def probe_model(
    model: Model, opened: OpenedTask, loading: Loading, settings: ProbeSettings, *, again: bool = False
) -> Path:
    """Fits classifiers on a network's frozen features of a task; the path of the result.

    Raises:
        UserError: a picture is broken, or a part is too small or of another size than the paper's.
    """
    labels = {split: images.labels for split, images in opened.splits.items()}
    difference = _check_sizes(opened, labels, settings)
    data = describe_data(opened.task.name, list(opened.splits.values()), difference)
    plan = _Plan(model, opened.task, data, settings, loading.cache / "studies")
    if is_known(model, plan.path, data) and not again:
        return plan.path
    features = {split: extract(model, images, loading) for split, images in opened.splits.items()}
    plan = replace(plan, data={**data, **_cut(list(features.values()))})
    return _probe(plan, features, labels, again)


def probe_features(
    source: Evaluated,
    splits: Mapping[str, tuple[Rows, Labels]],
    settings: ProbeSettings,
    cache: Path,
    *,
    again: bool = False,
) -> Path:
    """The same on ready features: train and test, and perhaps val, or all to draw from."""
    labels = {split: known for split, (_, known) in splits.items()}
    data = {
        "name": source.name,
        "path": source.name,
        "digest": source.sha256,
        "num_samples": sum(map(len, labels.values())),
        "num_classes": len(np.unique(np.concatenate(list(labels.values())))),
    }
    plan = _Plan(source, Task(name=source.name), data, settings, cache / "studies")
    if is_known(source, plan.path, data) and not again:
        return plan.path
    return _probe(plan, {split: rows for split, (rows, _) in splits.items()}, labels, again)


def analyze_model(
    model: Model,
    name: str,
    domain: str,
    splits: list[ImageSet],
    loading: Loading,
    normalization: str,
    *,
    difference: str = "",
    again: bool = False,
) -> Path:
    """Measures a network's features of pictures; the result's value is the coding length, all four are in `measures`.

    Raises:
        UserError: a picture is broken, there is no such reading, or a measure has no answer.
    """
    data = describe_data(name, splits, difference)
    path = result_path(model, "analyze", data, _analysis_settings(domain, normalization))
    if is_known(model, path, data) and not again:
        return path
    found = [extract(model, images, loading) for images in splits]
    data, rows = {**data, **_cut(found)}, Stacked(found)
    return _analyze(model, path, data, rows, np.concatenate([split.labels for split in splits]), domain, normalization)


def analyze_features(
    source: Evaluated, splits: Mapping[str, tuple[Rows, Labels]], normalization: str, *, again: bool = False
) -> Path:
    """The same on ready features, all parts together."""
    labels = np.concatenate([known for _, known in splits.values()])
    data = {
        "name": source.name,
        "path": source.name,
        "digest": source.sha256,
        "num_samples": len(labels),
        "num_classes": len(np.unique(labels)),
    }
    path = result_path(source, "analyze", data, _analysis_settings("", normalization))
    if is_known(source, path, data) and not again:
        return path
    return _analyze(source, path, data, Stacked([rows for rows, _ in splits.values()]), labels, "", normalization)


def analyze_test_set(
    model: Model, opened: OpenedSet, loading: Loading, normalization: str, *, again: bool = False
) -> Path:
    """`analyze_model` for a test set: the images of classes that the network knows, as the paper's are of ImageNet-100."""
    is_matched = opened.row and model.backbone.classes
    images = _of_known_classes(model, opened)[0] if is_matched else opened.images
    domain = opened.row.domain if opened.row else ""
    return analyze_model(
        model, images.name, domain, [images], loading, normalization, difference=opened.difference, again=again
    )


def analyze_task(
    model: Model, opened: OpenedTask, loading: Loading, normalization: str, *, again: bool = False
) -> Path:
    """`analyze_model` for a transfer task: all its images (supplementary, section 3.3)."""
    domain = TRANSFER if opened.task.family in MEASURED_FAMILIES else ""
    splits, difference = list(opened.splits.values()), _check_total(opened)
    return analyze_model(
        model, opened.task.name, domain, splits, loading, normalization, difference=difference, again=again
    )


@dataclass(frozen=True)
class _Plan:
    """Of a probe: what it is of, and where its result and its studies go."""

    model: Evaluated
    task: Task
    data: dict[str, Any]
    settings: ProbeSettings
    studies: Path

    @property
    def probe(self) -> str:
        return self.settings.probe or self.task.probe

    @property
    def described(self) -> dict[str, Any]:
        return {"probe": self.probe, "trials": self.settings.trials, "seeds": list(self.settings.seeds)}

    @property
    def path(self) -> Path:
        return result_path(self.model, "probe", self.data, self.described)

    def study(self, seed: int) -> Path:
        key = [self.model.sha256, self.data["digest"], self.data.get("state", ""), self.probe, seed]
        return self.studies / hashlib.sha256(json.dumps(key).encode()).hexdigest()


def _probe(plan: _Plan, features: Mapping[str, Rows], labels: Mapping[str, Labels], again: bool) -> Path:
    from fakeit_eval.probing.run_probe import run_probe

    runs = []
    for seed in plan.settings.seeds:
        if again:
            shutil.rmtree(plan.study(seed), ignore_errors=True)
        data = _drawn(plan.task, features, labels, seed)
        score = run_probe(plan.probe, data, num_trials=plan.settings.trials, seed=seed, study=plan.study(seed))
        runs.append(_describe_run(seed, score, data))
    found = {name: np.array([run[name] for run in runs]) for name in ("top1", "mean_per_class")}
    spread = {f"{name}_spread": round(float(v.std(ddof=1)), 4) for name, v in found.items() if len(runs) > 1}
    write_result(
        plan.model,
        plan.path,
        task="probe",
        value=float(found["top1"].mean()),
        unit="% top-1",
        data=plan.data,
        settings=plan.described,
        mean_per_class=round(float(found["mean_per_class"].mean()), 4),
        **({"interval": runs[0]["interval"]} if len(runs) == 1 else spread),
        num_images=runs[0]["num_images"],
        runs=runs,
    )
    return plan.path


def _describe_run(seed: int, score: "ProbeScore", data: "ProbeData") -> dict[str, Any]:
    return {
        "seed": seed,
        "top1": round(score.top1, 4),
        "interval": interval(score.num_right, len(data.test[1])),
        "mean_per_class": round(score.mean_per_class, 4),
        "num_images": {split: len(getattr(data, split)[1]) for split in ("train", "val", "test")},
        "parameters": score.parameters,
        "trials": score.trials,
    }


def _drawn(task: Task, features: Mapping[str, Rows], labels: Mapping[str, Labels], seed: int) -> "ProbeData":
    from fakeit_eval.probes.base import ProbeData

    drawn = draw_splits(task, dict(labels), seed)

    def split(name: str) -> Any:
        ((source, rows),) = drawn[name]
        is_whole = len(rows) == len(labels[source])
        return np.asarray(features[source][:] if is_whole else features[source][rows]), labels[source][rows]

    return ProbeData(split("train"), split("val"), split("test"))


def _check_sizes(opened: OpenedTask, labels: Mapping[str, Labels], settings: ProbeSettings) -> str:
    drawn = draw_splits(opened.task, dict(labels), settings.seeds[0])
    sizes = {split: sum(len(rows) for _, rows in found) for split, found in drawn.items()}
    first = next(iter(opened.splits.values()))
    difference = check_counts(opened.task, sizes, len(first.class_names))
    if difference and not settings.any_count:
        raise UserError(
            f"'{opened.task.name}' in '{first.location}' has {difference}; download it again, or add --any-count "
            "for a result that says so"
        )
    return difference


def _check_total(opened: OpenedTask) -> str:
    """How many images a task has instead of the paper's, in words; "" where there are as many, or nothing is expected."""
    task, found = opened.task, sum(len(images) for images in opened.splits.values())
    expected = task.train + task.val + task.test
    return f"{found:,} images instead of {expected:,}" if expected and found != expected else ""


def _of_known_classes(model: Model, opened: OpenedSet) -> tuple[ImageSet, list[str]]:
    """The images of classes that the model has, by the model's class ids; and the classes that it has not."""
    images, backbone = opened.images, model.backbone
    names = images.class_names
    found = match_classes(names, images.display_names, backbone.classes, backbone.class_names, where=images.location)
    ids = tuple(name if label is None else backbone.classes[label] for name, label in zip(names, found, strict=True))
    unknown = [name for name, label in zip(images.display_names or names, found, strict=True) if label is None]
    known = images.subset(shared_rows(images.labels, ids, backbone.classes))
    return replace(known, class_names=ids), unknown


def _cut(features: Sequence[StoredFeatures]) -> dict[str, int]:
    """How many files were read as far as they go, for a result; nothing where none was."""
    num_cut = sum(some.num_cut for some in features)
    return {"cut_files": num_cut} if num_cut else {}


def _describe_set(opened: OpenedSet, tested: ImageSet, unknown: list[str]) -> dict[str, Any]:
    data = describe_data(opened.images.name, [tested], opened.difference)
    if opened.row is None and unknown:  # of a table's set it is known which classes a model may have
        data["unknown_classes"] = unknown
    if opened.images.note:
        data["note"] = opened.images.note
    num_classes, left_out = len(np.unique(tested.labels)), len(opened.images) - len(tested)
    stands_for = {"stands_for": opened.row.stands_for} if opened.row and opened.row.stands_for else {}
    return {**data, "num_classes": num_classes, **({"left_out": left_out} if left_out else {}), **stands_for}


def _analysis_settings(domain: str, normalization: str) -> dict[str, Any]:
    return {"reading": normalization, "group": domain}


def _analyze(
    model: Evaluated, path: Path, data: dict[str, Any], rows: Rows, labels: Labels, domain: str, normalization: str
) -> Path:
    from fakeit_eval.analyze import analyze

    measures = analyze(rows, labels, normalization)
    write_result(
        model,
        path,
        task="analyze",
        value=measures["coding_length"],
        unit="nats",
        data=data,
        settings=_analysis_settings(domain, normalization),
        measures=measures,
    )
    return path
