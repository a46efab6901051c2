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
from builders.format.errors import UserError, near
from fakeit_eval.backbones import Subject
from fakeit_eval.classify import classify, shared_rows
from fakeit_eval.features import Loading, StoredFeatures, class_scores, extract
from fakeit_eval.intervals import interval
from fakeit_eval.pictures.base import Labels, PictureSet
from fakeit_eval.probes.base import probe_names
from fakeit_eval.results import Evaluated, describe_data, is_known, result_path, write_result
from fakeit_eval.stacked import Rows, Stacked
from fakeit_eval.tasks.base import Task, check_counts, draw_parts
from fakeit_eval.tasks.open_tasks import OpenedTask
from fakeit_eval.test_sets.open_sets import OpenedSet

if TYPE_CHECKING:
    from fakeit_eval.probes.base import ProbeData, ProbeScore

MEASURED_GROUPS = ("small", "inaturalist", "offline")
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
            raise UserError(f"unknown probe '{self.probe}'; {near(self.probe, probe_names())}")


def test_subject(subject: Subject, opened: OpenedSet, loading: Loading, *, again: bool = False) -> Path:
    """Tests a network's own classifier on a test set; the path of the result.

    Raises:
        UserError: a picture is broken, the network has no classifier, or it knows none of the set's classes.
    """
    backbone = subject.backbone
    if not backbone.classes:
        raise UserError(f"'{subject.name}' has no classifier to test; use 'fakeit-eval probe'")
    known, unknown = _of_known_classes(subject, opened)
    pictures, data = known, _describe_set(opened, known, unknown)
    settings = {"input_size": backbone.input_size}
    path = result_path(subject, "test", data, settings)
    if is_known(subject, path, data) and not again:
        return path
    features = extract(subject, pictures, loading)
    logits = class_scores(subject, features)
    score = classify(logits, pictures.labels, pictures.class_names, backbone.classes)
    write_result(
        subject,
        path,
        task="test",
        value=score.top1,
        unit="% top-1",
        data={**data, **_cut([features])},
        settings=settings,
        **score.fields(),
    )
    return path


def probe_subject(
    subject: Subject, opened: OpenedTask, loading: Loading, settings: ProbeSettings, *, again: bool = False
) -> Path:
    """Fits classifiers on a network's frozen features of a task; the path of the result.

    Raises:
        UserError: a picture is broken, or a part is too small or of another size than the paper's.
    """
    labels = {part: pictures.labels for part, pictures in opened.parts.items()}
    difference = _check_sizes(opened, labels, settings)
    data = describe_data(opened.task.name, list(opened.parts.values()), difference)
    plan = _Plan(subject, opened.task, data, settings, loading.cache / "studies")
    if is_known(subject, plan.path, data) and not again:
        return plan.path
    features = {part: extract(subject, pictures, loading) for part, pictures in opened.parts.items()}
    plan = replace(plan, data={**data, **_cut(list(features.values()))})
    return _probe(plan, features, labels, again)


def probe_features(
    source: Evaluated,
    parts: Mapping[str, tuple[Rows, Labels]],
    settings: ProbeSettings,
    cache: Path,
    *,
    again: bool = False,
) -> Path:
    """The same on ready features: train and test, and perhaps val, or all to draw from."""
    labels = {part: known for part, (_, known) in parts.items()}
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
    return _probe(plan, {part: rows for part, (rows, _) in parts.items()}, labels, again)


def analyze_subject(
    subject: Subject,
    name: str,
    group: str,
    parts: list[PictureSet],
    loading: Loading,
    reading: str,
    *,
    difference: str = "",
    again: bool = False,
) -> Path:
    """Measures a network's features of pictures; the result's value is the coding length, all four are in `measures`.

    Raises:
        UserError: a picture is broken, there is no such reading, or a measure has no answer.
    """
    data = describe_data(name, parts, difference)
    path = result_path(subject, "analyze", data, _analysis_settings(group, reading))
    if is_known(subject, path, data) and not again:
        return path
    found = [extract(subject, pictures, loading) for pictures in parts]
    data, rows = {**data, **_cut(found)}, Stacked(found)
    return _analyze(subject, path, data, rows, np.concatenate([part.labels for part in parts]), group, reading)


def analyze_features(
    source: Evaluated, parts: Mapping[str, tuple[Rows, Labels]], reading: str, *, again: bool = False
) -> Path:
    """The same on ready features, all parts together."""
    labels = np.concatenate([known for _, known in parts.values()])
    data = {
        "name": source.name,
        "path": source.name,
        "digest": source.sha256,
        "num_samples": len(labels),
        "num_classes": len(np.unique(labels)),
    }
    path = result_path(source, "analyze", data, _analysis_settings("", reading))
    if is_known(source, path, data) and not again:
        return path
    return _analyze(source, path, data, Stacked([rows for rows, _ in parts.values()]), labels, "", reading)


def analyze_test_set(
    subject: Subject, opened: OpenedSet, loading: Loading, reading: str, *, again: bool = False
) -> Path:
    """`analyze_subject` for a test set: the images of classes that the network knows, as the paper's are of ImageNet-100."""
    is_matched = opened.row and subject.backbone.classes
    pictures = _of_known_classes(subject, opened)[0] if is_matched else opened.pictures
    group = opened.row.group if opened.row else ""
    return analyze_subject(
        subject, pictures.name, group, [pictures], loading, reading, difference=opened.difference, again=again
    )


def analyze_task(subject: Subject, opened: OpenedTask, loading: Loading, reading: str, *, again: bool = False) -> Path:
    """`analyze_subject` for a transfer task: all its images (supplementary, section 3.3)."""
    group = TRANSFER if opened.task.group in MEASURED_GROUPS else ""
    parts, difference = list(opened.parts.values()), _check_total(opened)
    return analyze_subject(
        subject, opened.task.name, group, parts, loading, reading, difference=difference, again=again
    )


@dataclass(frozen=True)
class _Plan:
    """Of a probe: what it is of, and where its result and its studies go."""

    subject: Evaluated
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
        return result_path(self.subject, "probe", self.data, self.described)

    def study(self, seed: int) -> Path:
        key = [self.subject.sha256, self.data["digest"], self.data.get("state", ""), self.probe, seed]
        return self.studies / hashlib.sha256(json.dumps(key).encode()).hexdigest()


def _probe(plan: _Plan, features: Mapping[str, Rows], labels: Mapping[str, Labels], again: bool) -> Path:
    from fakeit_eval.probes.probe import run_probe

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
        plan.subject,
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
        "num_images": {part: len(getattr(data, part)[1]) for part in ("train", "val", "test")},
        "parameters": score.parameters,
        "trials": score.trials,
    }


def _drawn(task: Task, features: Mapping[str, Rows], labels: Mapping[str, Labels], seed: int) -> "ProbeData":
    from fakeit_eval.probes.base import ProbeData

    drawn = draw_parts(task, dict(labels), seed)

    def part(name: str) -> Any:
        ((source, rows),) = drawn[name]
        is_whole = len(rows) == len(labels[source])
        return np.asarray(features[source][:] if is_whole else features[source][rows]), labels[source][rows]

    return ProbeData(part("train"), part("val"), part("test"))


def _check_sizes(opened: OpenedTask, labels: Mapping[str, Labels], settings: ProbeSettings) -> str:
    drawn = draw_parts(opened.task, dict(labels), settings.seeds[0])
    sizes = {part: sum(len(rows) for _, rows in found) for part, found in drawn.items()}
    first = next(iter(opened.parts.values()))
    difference = check_counts(opened.task, sizes, len(first.class_names))
    if difference and not settings.any_count:
        raise UserError(
            f"'{opened.task.name}' in '{first.place}' has {difference}; download it again, or add --any-count "
            "for a result that says so"
        )
    return difference


def _check_total(opened: OpenedTask) -> str:
    """How many images a task has instead of the paper's, in words; "" where there are as many, or nothing is expected."""
    task, found = opened.task, sum(len(pictures) for pictures in opened.parts.values())
    expected = task.train + task.val + task.test
    return f"{found:,} images instead of {expected:,}" if expected and found != expected else ""


def _of_known_classes(subject: Subject, opened: OpenedSet) -> tuple[PictureSet, list[str]]:
    """The images of classes that the model has, by the model's class ids; and the classes that it has not."""
    pictures, backbone = opened.pictures, subject.backbone
    names = pictures.class_names
    found = match_classes(names, pictures.called, backbone.classes, backbone.class_names, where=pictures.place)
    ids = tuple(name if label is None else backbone.classes[label] for name, label in zip(names, found, strict=True))
    unknown = [name for name, label in zip(pictures.called or names, found, strict=True) if label is None]
    known = pictures.subset(shared_rows(pictures.labels, ids, backbone.classes))
    return replace(known, class_names=ids), unknown


def _cut(features: Sequence[StoredFeatures]) -> dict[str, int]:
    """How many files were read as far as they go, for a result; nothing where none was."""
    num_cut = sum(some.num_cut for some in features)
    return {"cut_files": num_cut} if num_cut else {}


def _describe_set(opened: OpenedSet, tested: PictureSet, unknown: list[str]) -> dict[str, Any]:
    data = describe_data(opened.pictures.name, [tested], opened.difference)
    if opened.row is None and unknown:  # of a table's set it is known which classes a model may have
        data["unknown_classes"] = unknown
    if opened.pictures.note:
        data["note"] = opened.pictures.note
    num_classes, left_out = len(np.unique(tested.labels)), len(opened.pictures) - len(tested)
    stands_for = {"stands_for": opened.row.stands_for} if opened.row and opened.row.stands_for else {}
    return {**data, "num_classes": num_classes, **({"left_out": left_out} if left_out else {}), **stands_for}


def _analysis_settings(group: str, reading: str) -> dict[str, Any]:
    return {"reading": reading, "group": group}


def _analyze(
    subject: Evaluated, path: Path, data: dict[str, Any], rows: Rows, labels: Labels, group: str, reading: str
) -> Path:
    from fakeit_eval.analysis.analyse import analyse

    measures = analyse(rows, labels, reading)
    write_result(
        subject,
        path,
        task="analyze",
        value=measures["coding_length"],
        unit="nats",
        data=data,
        settings=_analysis_settings(group, reading),
        measures=measures,
    )
    return path
